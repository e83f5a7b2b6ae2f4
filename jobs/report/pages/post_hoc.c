/* Experiment f: iterative merging after the fact, on validation data alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "jobs/report/plot.h"
#include "jobs/report/rows.h"
#include "mpi/error.h"

/* Published: from a merge of 72.70 % to 79.67 % after ten orders. */
static const double published_gain = 6.97;

static void write_gain(const am_grid *rows, am_html *html)
{
    char a[AM_STAT_TEXT], b[AM_STAT_TEXT], d[AM_STAT_TEXT];
    const am_stat gain = am_grid_paired(rows, "iterative", -1, "one_shot", -1);
    if (gain.n > 0) {
        am_html_claim(html, am_verdict_above(gain, 0),
                      "A few rounds on validation data alone improve a merge: test accuracy from "
                      "%s %% to %s %%, a gain of %s points; the paper: %.2f points after ten "
                      "orders (rule: above 0).",
                      am_stat_text(a, am_grid_stat(rows, "one_shot", -1), 2),
                      am_stat_text(b, am_grid_stat(rows, "iterative", -1), 2),
                      am_stat_text(d, gain, 2), published_gain);
    }
}

/* Which tasks pay for it: in the paper EuroSAT fell from 82 to 54 %. */
static void write_tasks(const am_grid *rows, const char *const *tasks, int n, am_html *html)
{
    static const char *const heads[] = {"", "one-shot merge", "after the rounds", "difference"};
    int better = 0, worse = 0;
    am_html_table(html, "Test accuracy in percent, before and after; differences paired by seed",
                  heads, 4);
    for (int t = -1; t < n; t++) {
        const am_stat d = am_grid_paired(rows, "iterative", t, "one_shot", t);
        am_html_row(html, t < 0 ? "mean" : tasks[t]);
        am_html_stat(html, am_grid_stat(rows, "one_shot", t), 2);
        am_html_stat(html, am_grid_stat(rows, "iterative", t), 2);
        am_html_stat(html, d, 2);
        am_html_row_end(html);
        better += t >= 0 && am_verdict_above(d, 0) == AM_HOLDS;
        worse += t >= 0 && am_verdict_above(d, 0) == AM_FAILS;
    }
    am_html_table_end(html);
    if (rows->runs > 1) {
        am_html_paragraph(html,
                          "Of %d tasks %d gain and %d lose beyond two standard errors (in the "
                          "paper one of eight loses, from 82 to 54 %%).",
                          n, better, worse);
    }
}

static int write_curve(const am_report *report, am_html *html)
{
    am_grid grid = {.runs = report->n};
    const char *what;
    am_rounds_accuracy(report, "round", &grid, &what);
    am_rows_level(report, "one_shot", "one-shot merge", &grid);
    int rc = am_grid_finish(&grid);
    if (rc == 0) {
        am_html_raw(html, "<div class=\"plots\">\n");
        am_plot_lines(html,
                      &(am_plot){.caption = "Accuracy by round; round 0 is the merge that the "
                                            "rounds start from.",
                                 .x = "round",
                                 .y = what},
                      &grid);
        am_html_raw(html, "</div>\n");
    }
    am_grid_free(&grid);
    return rc;
}

static int write_page(const am_report *report, am_html *html)
{
    int n;
    am_grid rows = {.runs = report->n};
    const char **tasks = am_report_tasks(report, &n);
    am_rows_tasks(report, "one_shot", &rows);
    am_rows_tasks(report, "iterative", &rows);
    int rc = tasks != NULL ? am_grid_finish(&rows) : AM_E_NOMEM;
    if (rc == 0) {
        am_html_heading(html, "After the fact, on validation data");
        am_html_paragraph(html,
                          "The rounds start from the best one-shot merge and train on half of the "
                          "validation data; everything is chosen on the other half. The claim "
                          "(arXiv 2411.03055, PH-ATM): that improves any merge without training "
                          "data.");
        write_gain(&rows, html);
        rc = write_curve(report, html);
        write_tasks(&rows, tasks, n, html);
    }
    free(tasks);
    am_grid_free(&rows);
    return rc;
}

const am_report_page am_report_page_post_hoc = {
    .name = "post_hoc",
    .job = "iterate",
    .title = "Iterative merging after the fact, on validation data",
    .rules = am_rounds_rules,
    .write = write_page,
};
