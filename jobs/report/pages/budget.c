/* Experiment b: merging by rounds, and one budget of epochs cut into rounds.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "jobs/report/plot.h"
#include "jobs/report/rows.h"
#include "mpi/error.h"

/* Published, of eight tasks: round 1 71.62 %, round 10 88.08 %; ten epochs at once 72.22 %. */
static const double published_rounds = 16.46, published_split = 15.86;

enum { TEXT = 96 };

/* Do the runs of rounds differ in their method? */
static bool has_methods(const am_report *report)
{
    const json_t *rounds = am_report_member(report, "rounds");
    const json_t *first = json_object_get(json_array_get(rounds, 0), "method");
    for (size_t i = 1; i < json_array_size(rounds); i++) {
        if (!json_equal(json_object_get(json_array_get(rounds, i), "method"), first)) {
            return true;
        }
    }
    return false;
}

/* "10 rounds of 1 epoch" of a series of rounds, with the method where there are several. */
static void split_name(const am_report *report, const am_series *series, char out[TEXT])
{
    const json_t *run = am_rounds_find(report, series->name);
    const char *method = has_methods(report) ? am_member_text(run, "method") : NULL;
    const double rounds = am_series_last(series), epochs = am_member_number(run, "round_epochs");
    snprintf(out, TEXT, "%.40s%s%.6g round%s of %.6g epoch%s", method != NULL ? method : "",
             method != NULL ? ": " : "", rounds, rounds == 1 ? "" : "s", epochs,
             epochs == 1 ? "" : "s");
}

static bool same_method(const am_report *report, const am_series *a, const am_series *b)
{
    return json_equal(json_object_get(am_rounds_find(report, a->name), "method"),
                      json_object_get(am_rounds_find(report, b->name), "method"));
}

/* First round that is not the start. */
static double first_round(const am_series *series)
{
    return series->n > 1 && series->x[0] == 0 ? series->x[1] : series->x[0];
}

static void claim_rounds(const am_report *report, const am_grid *grid, const am_series *series,
                         const char *what, am_html *html)
{
    const double first = first_round(series), last = am_series_last(series);
    char name[TEXT], a[AM_STAT_TEXT], b[AM_STAT_TEXT], d[AM_STAT_TEXT];
    if (!(last > first)) {
        return;
    }
    const am_stat gain = am_grid_paired(grid, series->name, last, series->name, first);
    split_name(report, series, name);
    am_html_claim(html, am_verdict_above(gain, 0),
                  "More rounds are better. %s: %s from %s after round %.6g to %s after round %.6g, "
                  "a gain of %s points; the paper: %.2f points in ten rounds (rule: above 0).",
                  name, what, am_stat_text(a, am_grid_stat(grid, series->name, first), 2), first,
                  am_stat_text(b, am_grid_stat(grid, series->name, last), 2), last,
                  am_stat_text(d, gain, 2), published_rounds);
}

/* The most rounds against one: the ends of a budget. */
static void claim_split(const am_report *report, const am_grid *grid, const am_series *most,
                        const am_series *least, const char *what, am_html *html)
{
    char many[TEXT], few[TEXT], a[AM_STAT_TEXT], b[AM_STAT_TEXT], d[AM_STAT_TEXT];
    const double x = am_series_last(most), y = am_series_last(least);
    const am_stat gain = am_grid_paired(grid, most->name, x, least->name, y);
    split_name(report, most, many);
    split_name(report, least, few);
    am_html_claim(
        html, am_verdict_above(gain, 0),
        "A budget of epochs is better spent in more rounds. %s reach %s, %s reach %s "
        "(%s at the end of the budget): %s points more; the paper: %.2f points of 10 \u00d7 1 "
        "over 1 \u00d7 10 (rule: above 0).",
        many, am_stat_text(a, am_grid_stat(grid, most->name, x), 2), few,
        am_stat_text(b, am_grid_stat(grid, least->name, y), 2), what, am_stat_text(d, gain, 2),
        published_split);
}

static void write_claims(const am_report *report, const am_grid *grid, const char *what,
                         am_html *html)
{
    for (int s = 0; s < grid->n; s++) {
        const am_series *most = &grid->series[s], *least = most;
        bool is_most = true;
        for (int k = 0; k < grid->n; k++) {
            const am_series *other = &grid->series[k];
            if (same_method(report, most, other)) {
                is_most &= am_series_last(other) <= am_series_last(most);
                least = am_series_last(other) < am_series_last(least) ? other : least;
            }
        }
        if (is_most) {
            claim_rounds(report, grid, most, what, html);
            if (least != most) {
                claim_split(report, grid, most, least, what, html);
            }
        }
    }
}

static void write_table(const am_report *report, const am_grid *grid, const am_grid *rows,
                        const char *what, am_html *html)
{
    static const char *const published[][2] = {
        {"1", "88.08"}, {"2", "85.27"}, {"5", "79.11"}, {"10", "72.22"}};
    const char *heads[] = {"", what, "chosen round: test accuracy (%)", "paper, of ten epochs (%)"};
    am_html_table(html, "At the end of the budget, and at the round chosen on validation data",
                  heads, 4);
    for (int s = 0; s < grid->n; s++) {
        const am_series *series = &grid->series[s];
        char name[TEXT], epochs[TEXT];
        const char *paper = "\u2013";
        split_name(report, series, name);
        snprintf(epochs, sizeof epochs, "%.6g",
                 am_member_number(am_rounds_find(report, series->name), "round_epochs"));
        for (int p = 0; p < 4; p++) {
            paper = strcmp(published[p][0], epochs) == 0 ? published[p][1] : paper;
        }
        am_html_row(html, name);
        am_html_stat(html, am_grid_stat(grid, series->name, am_series_last(series)), 2);
        am_html_stat(html, am_rounds_chosen(report, rows, series->name), 2);
        am_html_cell(html, "%s", paper);
        am_html_row_end(html);
    }
    am_html_table_end(html);
}

/* The accuracies again under names for people, over `x`, with levels to compare with. */
static int plot(const am_report *report, const am_grid *rounds, const char *x, const char *title,
                const char *caption, am_html *html)
{
    am_grid keys = {.runs = report->n}, grid = {.runs = report->n};
    const char *what;
    am_rounds_accuracy(report, x, &keys, &what);
    int rc = am_grid_finish(&keys);
    for (int s = 0; s < keys.n && rc == 0; s++) {
        char name[TEXT];
        const am_series *of = am_grid_find(rounds, keys.series[s].name);
        split_name(report, of != NULL ? of : &keys.series[s], name);
        for (int i = 0; i < keys.series[s].n; i++) {
            const double *values = am_grid_values(&keys, &keys.series[s], i);
            for (int r = 0; r < report->n; r++) {
                am_grid_put(&grid, name, keys.series[s].x[i], r, values[r]);
            }
        }
    }
    am_rows_level(report, "joint", "joint training", &grid);
    AM_KEEP(am_grid_finish(&grid));
    if (rc == 0) {
        am_plot_lines(html, &(am_plot){.caption = caption, .x = title, .y = what}, &grid);
    }
    am_grid_free(&keys);
    am_grid_free(&grid);
    return rc;
}

static int write_page(const am_report *report, am_html *html)
{
    am_grid grid = {.runs = report->n}, rows = {.runs = report->n};
    const char *what;
    am_rounds_accuracy(report, "round", &grid, &what);
    am_rows_tasks(report, "iterative", &rows);
    int rc = am_grid_finish(&grid);
    AM_KEEP(am_grid_finish(&rows));
    if (rc == 0) {
        am_html_heading(html, "Rounds, and one budget of epochs");
        am_html_paragraph(html,
                          "Iterative merging finetunes every task from the merged model of the "
                          "round before. The claim (arXiv 2411.03055, 2508.16082): accuracy grows "
                          "with rounds, and E rounds of one epoch are better than one round of E.");
        write_claims(report, &grid, what, html);
        write_table(report, &grid, &rows, what, html);
        am_html_raw(html, "<div class=\"plots\">\n");
        rc = plot(report, &grid, "epochs", "epochs that each task was trained",
                  "Accuracy by epochs spent.", html);
        AM_KEEP(plot(report, &grid, "round", "round", "Accuracy by round.", html));
        am_html_raw(html, "</div>\n");
    }
    am_grid_free(&grid);
    am_grid_free(&rows);
    return rc;
}

const am_report_page am_report_page_budget = {
    .name = "budget",
    .job = "iterate",
    .title = "Iterative merging: rounds, and one budget of epochs",
    .rules = am_rounds_rules,
    .write = write_page,
};
