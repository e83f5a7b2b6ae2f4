/* What optimisers do to theorem 1. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "jobs/report/plot.h"
#include "jobs/report/theory.h"
#include "mpi/error.h"

static const double order_margin = 0.1; /* of slopes around 2 */

/* Sets of settings (T, alpha, k): those of k = 1, and the others. */
typedef struct found {
    int exact, n_first;    /* k = 1: the gap is within rounding */
    double relative_first; /* the largest gap / path of k = 1 at the largest eta */
    int within, n_later;   /* k > 1: slopes within the margin of 2 */
    double low, high;      /* those slopes */
} found;

static void look_at_rows(const json_t *result, const char *optimizer, double eta, found *out)
{
    const json_t *rows = json_object_get(result, "optimizers");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (am_is_text(row, "optimizer", optimizer) && am_member_number(row, "k") == 1) {
            out->n_first++;
            out->exact += am_member_number(row, "gap") <= am_member_number(row, "rounding");
            if (am_member_number(row, "eta") == eta) {
                out->relative_first =
                    fmax(out->relative_first, am_member_number(row, "relative_gap"));
            }
        }
    }
}

static void look_at_slopes(const json_t *result, const char *optimizer, found *out)
{
    const json_t *slopes = json_object_get(result, "optimizer_slopes");
    for (size_t i = 0; i < json_array_size(slopes); i++) {
        const json_t *slope = json_array_get(slopes, i);
        const double value = am_member_number(slope, "slope");
        if (am_is_text(slope, "optimizer", optimizer) && am_member_number(slope, "k") > 1 &&
            !isnan(value)) {
            out->n_later++;
            out->within += fabs(value - 2) <= order_margin;
            out->low = fmin(out->low, value);
            out->high = fmax(out->high, value);
        }
    }
}

/* The theorem is of gradient descent: for the others the sentence says what is left of it. */
static void write_claims(const am_report *report, const char *optimizer, am_html *html)
{
    found all = {.relative_first = NAN, .low = INFINITY, .high = -INFINITY};
    for (int r = 0; r < report->n; r++) {
        look_at_rows(report->run[r].result, optimizer,
                     am_theory_largest(report, "optimizers", "eta"), &all);
        look_at_slopes(report->run[r].result, optimizer, &all);
    }
    if (all.n_first > 0) {
        am_html_claim(html, all.exact == all.n_first ? AM_HOLDS : AM_FAILS,
                      "%s, one epoch: task arithmetic is multitask descent. The gap is rounding in "
                      "%d of %d settings; at the largest eta it comes up to %.3g of the way from "
                      "the base (rule: rounding in all).",
                      optimizer, all.exact, all.n_first, all.relative_first);
    }
    if (all.n_later > 0) {
        am_html_claim(html, all.within == all.n_later ? AM_HOLDS : AM_FAILS,
                      "%s, more epochs: the gap is of order 2 in eta. Its slopes lie between %.4f "
                      "and %.4f, %d of %d within 2 \u00b1 %g (rule: all).",
                      optimizer, all.low, all.high, all.within, all.n_later, order_margin);
    }
}

/* ---- over all settings at the largest eta ---- */

/* A member by optimiser over k: mean over T and alpha of a run. */
static void read_by_k(const am_report *report, const char *list, const char *key, am_grid *grid)
{
    const double eta = am_theory_largest(report, "optimizers", "eta");
    am_grid count = {.runs = report->n};
    for (int r = 0; r < report->n; r++) {
        const json_t *rows = json_object_get(report->run[r].result, list);
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            const char *name = am_member_text(row, "optimizer");
            const double k = am_member_number(row, "k"), value = am_member_number(row, key);
            const bool is_of_eta =
                strcmp(list, "optimizers") != 0 || am_member_number(row, "eta") == eta;
            if (name == NULL || isnan(value) || isnan(k) || !is_of_eta) {
                continue;
            }
            const double *seen = am_grid_at(&count, name, k), *mean = am_grid_at(grid, name, k);
            const double n = seen != NULL && !isnan(seen[r]) ? seen[r] : 0;
            const double before = n > 0 && mean != NULL ? mean[r] : 0;
            am_grid_put(grid, name, k, r, before + (value - before) / (n + 1));
            am_grid_put(&count, name, k, r, n + 1);
        }
    }
    grid->failed |= count.failed;
    am_grid_free(&count);
}

static void write_table(const am_grid *slopes, const am_grid *gaps, const am_grid *cosines,
                        am_html *html)
{
    static const char *const heads[] = {"optimiser, k", "slope of the gap", "log10 gap / path",
                                        "cosine"};
    am_html_table(html,
                  "Means over T and alpha; gap / path and the cosine of the two ways from the base "
                  "at the largest eta",
                  heads, 4);
    for (int s = 0; s < gaps->n; s++) {
        const am_series *series = &gaps->series[s];
        for (int i = 0; i < series->n; i++) {
            char name[AM_THEORY_NAME];
            const double k = series->x[i];
            const am_stat gap = am_grid_stat(gaps, series->name, k);
            snprintf(name, sizeof name, "%.40s, k = %.6g", series->name, k);
            am_html_row(html, name);
            am_html_stat(html, am_grid_stat(slopes, series->name, k), 4);
            am_html_stat(html,
                         (am_stat){.n = gap.mean > 0 ? gap.n : 0,
                                   .mean = log10(gap.mean),
                                   .error = gap.error / gap.mean / log(10)},
                         2);
            am_html_stat(html, am_grid_stat(cosines, series->name, k), 6);
            am_html_row_end(html);
        }
    }
    am_html_table_end(html);
}

/* The gap over eta for one k at the most tasks and the first alpha, a series an optimiser. */
static int plot_gaps(const am_report *report, double k, am_html *html)
{
    const double tasks = am_theory_largest(report, "optimizers", "tasks");
    const double alpha =
        am_member_number(json_array_get(am_report_member(report, "optimizers"), 0), "alpha");
    am_grid grid = {.runs = report->n};
    char caption[160];
    for (int r = 0; r < report->n; r++) {
        const json_t *rows = json_object_get(report->run[r].result, "optimizers");
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            const double gap = am_member_number(row, "gap");
            const char *name = am_member_text(row, "optimizer");
            if (name != NULL && am_member_number(row, "k") == k && gap > 0 &&
                am_member_number(row, "tasks") == tasks &&
                am_member_number(row, "alpha") == alpha) {
                am_grid_put(&grid, name, am_member_number(row, "eta"), r, gap);
            }
        }
    }
    snprintf(caption, sizeof caption, "Gap over \u03b7: k = %.6g, T = %.6g, alpha = %.6g.", k,
             tasks, alpha);
    am_plot_lines(
        html,
        &(am_plot){.caption = caption, .x = "\u03b7", .y = "gap", .log_x = true, .log_y = true},
        &grid);
    int rc = am_grid_finish(&grid);
    am_grid_free(&grid);
    return rc;
}

int am_theory_page_optimizers(const am_report *report, am_html *html)
{
    am_grid slopes = {.runs = report->n}, gaps = {.runs = report->n}, cosines = {.runs = report->n};
    read_by_k(report, "optimizer_slopes", "slope", &slopes);
    read_by_k(report, "optimizers", "relative_gap", &gaps);
    read_by_k(report, "optimizers", "cosine", &cosines);
    int rc = am_grid_finish(&slopes);
    AM_KEEP(am_grid_finish(&gaps));
    AM_KEEP(am_grid_finish(&cosines));
    if (rc == 0 && am_grid_has(&gaps)) {
        am_html_heading(html, "What the optimiser does to theorem 1");
        am_html_paragraph(
            html, "The theorem is of full-batch gradient descent (gd). The paper's own "
                  "models were trained with AdamW, whose first step is about \u2212\u03b7 sign(g): "
                  "not linear in the gradient, so that a sum of task vectors is not a step "
                  "on the sum of the losses.");
        for (int s = 0; s < gaps.n; s++) {
            write_claims(report, gaps.series[s].name, html);
        }
        am_html_raw(html, "<div class=\"plots\">\n");
        for (int i = 0; i < gaps.series[0].n && rc == 0; i++) {
            rc = plot_gaps(report, gaps.series[0].x[i], html);
        }
        am_html_raw(html, "</div>\n");
        write_table(&slopes, &gaps, &cosines, html);
    }
    am_grid_free(&slopes);
    am_grid_free(&gaps);
    am_grid_free(&cosines);
    return rc;
}
