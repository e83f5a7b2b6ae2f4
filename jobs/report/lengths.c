/* Pages on how long to finetune before a one-shot merge: one epoch against the longest.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/report/plot.h"
#include "jobs/report/rows.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { MOST_LENGTHS = 16, HEAD = 32 };

static const am_published *published_of(const am_published *published, const char *method)
{
    while (strncmp(method, published->method, strlen(published->method)) != 0) {
        published++; /* ends with "" */
    }
    return published;
}

/* Share of the gain over the base that one epoch has, by run: of means it says little where the
 * gain is small. */
static am_stat share_of(const am_grid *grid, const char *method, double first, double last)
{
    am_grid shares = {.runs = grid->runs};
    const double *one = am_grid_at(grid, method, first), *all = am_grid_at(grid, method, last);
    const double *base = am_grid_at(grid, "base", 0);
    for (int r = 0; r < grid->runs && one != NULL && all != NULL && base != NULL; r++) {
        if (all[r] > base[r]) {
            am_grid_put(&shares, "", 0, r, 100 * (one[r] - base[r]) / (all[r] - base[r]));
        }
    }
    const am_stat stat = am_grid_stat(&shares, "", 0);
    am_grid_free(&shares);
    return stat;
}

static void write_table(const am_grid *grid, am_html *html)
{
    const am_series *first = &grid->series[0];
    char text[MOST_LENGTHS][HEAD];
    const char *heads[MOST_LENGTHS + 3] = {"merge"};
    const int n = first->n < MOST_LENGTHS ? first->n : MOST_LENGTHS;
    const double last = am_series_last(first);
    for (int i = 0; i < n; i++) {
        snprintf(text[i], HEAD, "%.6g epoch%s", first->x[i], first->x[i] == 1 ? "" : "s");
        heads[i + 1] = text[i];
    }
    heads[n + 1] = "longest \u2212 first";
    heads[n + 2] = "first, % of the gain over base, of seeds with a gain";
    am_html_table(html, "Test accuracy of merges in percent, mean over the tasks", heads, n + 3);
    for (int s = 0; s < grid->n; s++) {
        const char *name = grid->series[s].name;
        if (grid->series[s].is_level) {
            continue;
        }
        am_html_row(html, name);
        for (int i = 0; i < n; i++) {
            am_html_stat(html, am_grid_stat(grid, name, first->x[i]), 2);
        }
        am_html_stat(html, am_grid_paired(grid, name, last, name, first->x[0]), 2);
        am_html_stat(html, share_of(grid, name, first->x[0], last), 0);
        am_html_row_end(html);
    }
    am_html_table_end(html);
}

static void write_claims(const am_grid *grid, const am_published *published, am_html *html)
{
    for (int s = 0; s < grid->n; s++) {
        const am_series *series = &grid->series[s];
        if (series->is_level || series->n < 2) {
            continue;
        }
        const double first = series->x[0], last = am_series_last(series);
        const am_published *paper = published_of(published, series->name);
        const am_stat gap = am_grid_paired(grid, series->name, last, series->name, first);
        char difference[AM_STAT_TEXT], one[AM_STAT_TEXT], all[AM_STAT_TEXT];
        am_html_claim(html, am_verdict_within(gap, paper->points),
                      "%s: %.6g epoch%s reach%s %s %%, %.6g epochs reach %s %%. The longest is "
                      "ahead by %s points; the paper: %.2f points of %s (rule: at most as much).",
                      series->name, first, first == 1 ? "" : "s", first == 1 ? "es" : "",
                      am_stat_text(one, am_grid_stat(grid, series->name, first), 2), last,
                      am_stat_text(all, am_grid_stat(grid, series->name, last), 2),
                      am_stat_text(difference, gap, 2), paper->points, paper->of);
    }
}

/* First and longest beside each other, by method. */
static int plot_ends(const am_report *report, const am_grid *grid, am_html *html)
{
    const char **names = am_new(grid->n + 1, sizeof *names, "names of methods");
    am_grid ends = {.runs = report->n};
    int n = 0;
    for (int s = 0; names != NULL && s < grid->n; s++) {
        const am_series *series = &grid->series[s];
        if (series->is_level) {
            continue;
        }
        for (int k = 0; k < 2; k++) {
            char name[HEAD];
            const int at = k == 0 ? 0 : series->n - 1;
            const double *values = am_grid_values(grid, series, at);
            snprintf(name, sizeof name, "%.6g epoch%s", series->x[at],
                     series->x[at] == 1 ? "" : "s");
            for (int r = 0; r < report->n; r++) {
                am_grid_put(&ends, name, n, r, values[r]);
            }
        }
        names[n++] = series->name;
    }
    int rc = names != NULL ? am_grid_finish(&ends) : AM_E_NOMEM;
    if (rc == 0) {
        am_rows_level(report, "base", "base", &ends);
        am_plot_lines(html,
                      &(am_plot){.caption = "The shortest and the longest finetuning, by merge.",
                                 .y = "test accuracy (%)",
                                 .names = names,
                                 .n_names = n},
                      &ends);
        rc = am_grid_finish(&ends);
    }
    am_grid_free(&ends);
    free(names);
    return rc;
}

int am_page_lengths(const am_report *report, const am_published *published, am_html *html)
{
    am_grid grid = {.runs = report->n};
    am_rows_lengths(report, &grid);
    am_rows_level(report, "base", "base", &grid);
    int rc = am_grid_finish(&grid);
    if (rc == 0 && am_grid_has(&grid) && !grid.series[0].is_level) {
        write_claims(&grid, published, html);
        write_table(&grid, html);
        am_html_raw(html, "<div class=\"plots\">\n");
        am_plot_lines(html,
                      &(am_plot){.caption = "One-shot merges by epochs of finetuning.",
                                 .x = "epochs",
                                 .y = "test accuracy (%)",
                                 .log_x = true},
                      &grid);
        rc = plot_ends(report, &grid, html);
        am_html_raw(html, "</div>\n");
    }
    am_grid_free(&grid);
    return rc;
}
