/* Gap and residual over eta, and their slopes. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "jobs/report/plot.h"
#include "jobs/report/theory.h"
#include "mpi/error.h"

/* What the slopes must be within, of all settings: the acceptance of the theorem's orders. */
static const double gap_order = 2, gap_margin = 0.02, residual_order = 3, residual_margin = 0.05;
static const double most_ulps = 4; /* k = 1: equal to rounding */

void am_theory_place(const json_t *object, char out[AM_THEORY_NAME])
{
    snprintf(out, AM_THEORY_NAME, "T %.6g, alpha %.6g", am_member_number(object, "tasks"),
             am_member_number(object, "alpha"));
}

double am_theory_largest(const am_report *report, const char *list, const char *key)
{
    double most = NAN;
    const json_t *rows = am_report_member(report, list);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        most = fmax(most, am_member_number(json_array_get(rows, i), key));
    }
    return most;
}

/* ---- slopes ---- */

enum { GAP, RESIDUAL = 3 }; /* columns: the slope, the low and the high end of its interval */

/* Slopes and their intervals by setting. */
static void read_slopes(const am_report *report, am_grid *grid)
{
    static const char *const orders[] = {"gap", "residual"}, *const keys[] = {"slope", "low",
                                                                              "high"};
    for (int r = 0; r < report->n; r++) {
        const json_t *slopes = json_object_get(report->run[r].result, "slopes");
        for (size_t i = 0; i < json_array_size(slopes); i++) {
            const json_t *slope = json_array_get(slopes, i);
            char place[AM_THEORY_NAME], name[AM_THEORY_NAME + 16];
            am_theory_place(slope, place);
            snprintf(name, sizeof name, "%s, k %.6g", place, am_member_number(slope, "k"));
            for (int c = 0; c < 6; c++) {
                am_grid_put(grid, name, c, r,
                            am_member_number(json_object_get(slope, orders[c / 3]), keys[c % 3]));
            }
        }
    }
}

/* The slope of one k: over seeds mean and error, of one run half its interval. */
static void write_slope(const am_report *report, const am_grid *grid, const char *place, double k,
                        int column, am_html *html)
{
    char name[AM_THEORY_NAME + 16];
    snprintf(name, sizeof name, "%s, k %.6g", place, k);
    am_stat slope = am_grid_stat(grid, name, column);
    if (report->n == 1) {
        slope.error = am_grid_stat(grid, name, column + 2).mean - slope.mean;
    }
    am_html_stat(html, slope, 4);
}

/* A row for each T and alpha, a column for each k. */
static void write_slopes(const am_report *report, const am_grid *grid, int column, const char *what,
                         am_html *html)
{
    enum { MOST_K = 16 };
    const json_t *slopes = am_report_member(report, "slopes");
    char heads[MOST_K + 1][32] = {""}, caption[160], row[AM_THEORY_NAME] = "";
    const char *names[MOST_K + 1] = {heads[0]};
    double k[MOST_K];
    int n = 0;
    for (size_t i = 0; i < json_array_size(slopes); i++) {
        const double own = am_member_number(json_array_get(slopes, i), "k");
        if (own > 1 && n < MOST_K && (n == 0 || own > k[n - 1])) {
            k[n] = own;
            snprintf(heads[n + 1], sizeof heads[n + 1], "k = %.6g", own);
            names[n + 1] = heads[n + 1];
            n++;
        }
    }
    snprintf(caption, sizeof caption, "Slopes of log %s over log \u03b7, \u00b1 %s", what,
             report->n > 1 ? "standard error over the seeds" : "half of the 95 % interval");
    am_html_table(html, caption, names, n + 1);
    for (size_t i = 0; i < json_array_size(slopes); i++) {
        char place[AM_THEORY_NAME];
        am_theory_place(json_array_get(slopes, i), place);
        if (strcmp(place, row) != 0) {
            snprintf(row, sizeof row, "%s", place);
            am_html_row(html, row);
            for (int j = 0; j < n; j++) {
                write_slope(report, grid, row, k[j], column, html);
            }
            am_html_row_end(html);
        }
    }
    am_html_table_end(html);
}

/* All settings within a margin of an order; the smallest and largest slope with it. */
static void claim_order(const am_grid *grid, int column, const char *what, double order,
                        double margin, am_html *html)
{
    double low = INFINITY, high = -INFINITY;
    int n = 0, within = 0;
    for (int s = 0; s < grid->n; s++) {
        const double *slope = am_grid_at(grid, grid->series[s].name, column);
        for (int r = 0; slope != NULL && r < grid->runs; r++) {
            if (!isnan(slope[r])) {
                low = fmin(low, slope[r]);
                high = fmax(high, slope[r]);
                within += fabs(slope[r] - order) <= margin;
                n++;
            }
        }
    }
    if (n > 0) {
        am_html_claim(
            html, within == n ? AM_HOLDS : AM_FAILS,
            "The %s is of order %g in eta: its slopes lie between %.4f and %.4f over %d "
            "settings of T, alpha, k and seed, %d of them within %g \u00b1 %g (rule: all).",
            what, order, low, high, n, within, order, margin);
    }
}

static void claim_first_epoch(const am_report *report, am_html *html)
{
    double most = NAN;
    for (int r = 0; r < report->n; r++) {
        const json_t *rows = json_object_get(report->run[r].result, "rows");
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            if (am_member_number(row, "k") == 1) {
                most = fmax(most, am_member_number(row, "ulps"));
            }
        }
    }
    if (!isnan(most)) {
        am_html_claim(html, most <= most_ulps ? AM_HOLDS : AM_FAILS,
                      "After one epoch task arithmetic is multitask gradient descent: for k = 1 "
                      "the two models differ by at most %.3g units in the last place in any "
                      "element (rule: at most %g, which is rounding).",
                      most, most_ulps);
    }
}

/* ---- over eta ---- */

/* A member of the rows of the most tasks and one alpha, a series a k above 1. */
static void read_rows(const am_report *report, double alpha, const char *key, am_grid *grid)
{
    const double tasks = am_theory_largest(report, "rows", "tasks");
    for (int r = 0; r < report->n; r++) {
        const json_t *rows = json_object_get(report->run[r].result, "rows");
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            if (am_member_number(row, "tasks") == tasks && am_member_number(row, "k") > 1 &&
                am_member_number(row, "alpha") == alpha) {
                char name[AM_THEORY_NAME];
                snprintf(name, sizeof name, "k = %.6g", am_member_number(row, "k"));
                am_grid_put(grid, name, am_member_number(row, "eta"), r,
                            am_member_number(row, key));
            }
        }
    }
}

static int plot_rows(const am_report *report, double alpha, am_html *html)
{
    static const char *const
        keys[] = {"gap", "residual"},
        *const titles[] = {"Gap, the distance of \u03b8_TA and \u03b8_MT",
                           "Residual, the gap less its second-order term \u03b1\u03b7\u00b2C"};
    int rc = 0;
    for (int k = 0; k < 2 && rc == 0; k++) {
        am_grid grid = {.runs = report->n};
        char caption[200];
        read_rows(report, alpha, keys[k], &grid);
        snprintf(caption, sizeof caption, "%s: T = %.6g, alpha = %.6g.", titles[k],
                 am_theory_largest(report, "rows", "tasks"), alpha);
        am_plot_lines(
            html,
            &(am_plot){
                .caption = caption, .x = "\u03b7", .y = keys[k], .log_x = true, .log_y = true},
            &grid);
        rc = am_grid_finish(&grid);
        am_grid_free(&grid);
    }
    return rc;
}

/* Each alpha of the rows once, in their order. */
static int plot_alphas(const am_report *report, am_html *html)
{
    const json_t *rows = am_report_member(report, "rows");
    int rc = 0;
    for (size_t i = 0; i < json_array_size(rows) && rc == 0; i++) {
        const double alpha = am_member_number(json_array_get(rows, i), "alpha");
        bool is_new = !isnan(alpha);
        for (size_t k = 0; k < i && is_new; k++) {
            is_new = am_member_number(json_array_get(rows, k), "alpha") != alpha;
        }
        rc = is_new ? plot_rows(report, alpha, html) : 0;
    }
    return rc;
}

int am_theory_page_orders(const am_report *report, am_html *html)
{
    am_grid slopes = {.runs = report->n};
    read_slopes(report, &slopes);
    int rc = am_grid_finish(&slopes);
    if (rc == 0) {
        am_html_heading(html, "Theorem 1: orders in eta");
        am_html_paragraph(
            html,
            "\u03b8_TA: k epochs of full-batch gradient descent with step \u03b7 on each of T "
            "tasks, the task vectors added with factor alpha. \u03b8_MT: k epochs with step "
            "alpha \u03b7 on the sum of the tasks. The claim: equal for k = 1, else "
            "\u03b8_TA \u2212 \u03b8_MT = alpha \u03b7\u00b2 C + O(\u03b7\u00b3).");
        claim_first_epoch(report, html);
        claim_order(&slopes, GAP, "gap", gap_order, gap_margin, html);
        claim_order(&slopes, RESIDUAL, "residual", residual_order, residual_margin, html);
        am_html_raw(html, "<div class=\"plots\">\n");
        rc = plot_alphas(report, html);
        am_html_raw(html, "</div>\n");
        am_html_raw(html, "<div class=\"plots\">\n");
        write_slopes(report, &slopes, GAP, "gap", html);
        write_slopes(report, &slopes, RESIDUAL, "residual", html);
        am_html_raw(html, "</div>\n");
    }
    am_grid_free(&slopes);
    return rc;
}
