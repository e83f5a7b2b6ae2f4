/* Experiment g: iterated DARE and its noise. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include "jobs/report/plot.h"
#include "jobs/report/rows.h"
#include "mpi/error.h"

static const double noise_margin = 0.05; /* of measured over expected energy */

enum { TEXT = 112 };

/* Measured over expected energy of the noise, by round. */
static void read_ratios(const am_report *report, am_grid *ratios)
{
    am_grid measured = {.runs = report->n}, expected = {.runs = report->n};
    am_rounds_read(report, "round", "noise_energy", 1, &measured);
    am_rounds_read(report, "round", "noise_expected", 1, &expected);
    for (int s = 0; s < measured.n; s++) {
        const am_series *series = &measured.series[s];
        for (int i = 0; i < series->n; i++) {
            const double *a = am_grid_values(&measured, series, i);
            const double *b = am_grid_at(&expected, series->name, series->x[i]);
            for (int r = 0; r < report->n && b != NULL; r++) {
                if (b[r] > 0) {
                    am_grid_put(ratios, series->name, series->x[i], r, a[r] / b[r]);
                }
            }
        }
    }
    ratios->failed |= measured.failed || expected.failed;
    am_grid_free(&measured);
    am_grid_free(&expected);
}

/* Mean over the rounds, by run. */
static am_stat mean_ratio(const am_grid *ratios, const am_series *series)
{
    am_grid means = {.runs = ratios->runs};
    for (int r = 0; r < ratios->runs; r++) {
        double sum = 0;
        int n = 0;
        for (int i = 0; i < series->n; i++) {
            const double value = am_grid_values(ratios, series, i)[r];
            sum += isnan(value) ? 0 : value;
            n += !isnan(value);
        }
        am_grid_put(&means, "", 0, r, n > 0 ? sum / n : NAN);
    }
    const am_stat stat = am_grid_stat(&means, "", 0);
    am_grid_free(&means);
    return stat;
}

/* Rounds of a run that drops at random make it worse. */
static void claim_collapse(const am_grid *grid, const am_series *series, const char *what,
                           am_html *html)
{
    const double first = series->x[0] == 0 && series->n > 1 ? series->x[1] : series->x[0];
    const double last = am_series_last(series);
    double best = first;
    char a[AM_STAT_TEXT], b[AM_STAT_TEXT], c[AM_STAT_TEXT], d[AM_STAT_TEXT];
    for (int i = 0; i < series->n; i++) {
        const double x = series->x[i];
        if (x >= first && am_grid_stat(grid, series->name, x).mean >
                              am_grid_stat(grid, series->name, best).mean) {
            best = x;
        }
    }
    const am_stat loss = am_grid_paired(grid, series->name, first, series->name, last);
    am_html_claim(html, am_verdict_above(loss, 0),
                  "%s collapses: %s %s after round %.6g, at best %s (round %.6g), %s after round "
                  "%.6g; first minus last: %s points. The paper: 71.65, 77.77, 53.58 and 6.10 %% "
                  "after rounds 1 to 4 with 0.9 dropped (rule: the last below the first).",
                  series->name, what, am_stat_text(a, am_grid_stat(grid, series->name, first), 2),
                  first, am_stat_text(b, am_grid_stat(grid, series->name, best), 2), best,
                  am_stat_text(c, am_grid_stat(grid, series->name, last), 2), last,
                  am_stat_text(d, loss, 2));
}

/* The same round of the runs that drop nothing; measured: the noise of those that do. */
static void compare(const am_grid *grid, const am_grid *measured, const am_series *series,
                    am_html *html)
{
    const double last = am_series_last(series);
    for (int s = 0; s < grid->n; s++) {
        const am_series *other = &grid->series[s];
        const am_stat d = am_grid_paired(grid, other->name, last, series->name, last);
        if (d.n > 0 && am_grid_find(measured, other->name) == NULL) {
            char text[AM_STAT_TEXT];
            am_html_claim(html, am_verdict_above(d, 0),
                          "Without dropping it is better: after round %.6g %s is ahead of %s by %s "
                          "points (rule: above 0).",
                          last, other->name, series->name, am_stat_text(text, d, 2));
        }
    }
}

static void claim_noise(const am_grid *ratios, const am_series *series, am_html *html)
{
    char text[AM_STAT_TEXT];
    const am_stat ratio = mean_ratio(ratios, series);
    am_html_claim(html, fabs(ratio.mean - 1) <= noise_margin ? AM_HOLDS : AM_FAILS,
                  "%s: each round adds noise of energy \u03bb\u00b2 p/(1\u2212p) "
                  "\u03a3\u2016\u03b4\u2016\u00b2. Measured "
                  "over expected is %s, mean over %d rounds (rule: 1 \u00b1 %g).",
                  series->name, am_stat_text(text, ratio, 4), series->n, noise_margin);
}

static int plot_noise(const am_report *report, am_html *html)
{
    static const char *const keys[] = {"noise_energy", "noise_expected"}, *const names[] = {
                                                                              "measured",
                                                                              "expected"};
    am_grid grid = {.runs = report->n};
    for (int k = 0; k < 2; k++) {
        am_grid part = {.runs = report->n};
        am_rounds_read(report, "round", keys[k], 1, &part);
        for (int s = 0; s < part.n; s++) {
            char name[TEXT];
            snprintf(name, sizeof name, "%.96s, %s", part.series[s].name, names[k]);
            for (int i = 0; i < part.series[s].n; i++) {
                const double *values = am_grid_values(&part, &part.series[s], i);
                for (int r = 0; r < report->n; r++) {
                    am_grid_put(&grid, name, part.series[s].x[i], r, values[r]);
                }
            }
        }
        grid.failed |= part.failed;
        am_grid_free(&part);
    }
    am_plot_lines(html,
                  &(am_plot){.caption = "Energy (squared norm) of the noise that each round adds: "
                                        "measured, and expected.",
                             .x = "round",
                             .y = "energy",
                             .log_y = true},
                  &grid);
    int rc = am_grid_finish(&grid);
    am_grid_free(&grid);
    return rc;
}

static void write_table(const am_report *report, const am_grid *grid, const am_grid *rows,
                        const am_grid *ratios, const char *what, am_html *html)
{
    const char *heads[] = {"", "first round", "last round", "chosen round: test accuracy (%)",
                           "noise, measured / expected"};
    char caption[TEXT];
    snprintf(caption, sizeof caption, "By run: %s", what);
    am_html_table(html, caption, heads, 5);
    for (int s = 0; s < grid->n; s++) {
        const am_series *series = &grid->series[s];
        const am_series *ratio = am_grid_find(ratios, series->name);
        const double first = series->x[0] == 0 && series->n > 1 ? series->x[1] : series->x[0];
        am_html_row(html, series->name);
        am_html_stat(html, am_grid_stat(grid, series->name, first), 2);
        am_html_stat(html, am_grid_stat(grid, series->name, am_series_last(series)), 2);
        am_html_stat(html, am_rounds_chosen(report, rows, series->name), 2);
        am_html_stat(html, ratio != NULL ? mean_ratio(ratios, ratio) : (am_stat){0}, 4);
        am_html_row_end(html);
    }
    am_html_table_end(html);
}

static int write_page(const am_report *report, am_html *html)
{
    am_grid grid = {.runs = report->n}, rows = {.runs = report->n}, ratios = {.runs = report->n};
    am_grid measured = {.runs = report->n};
    const char *what;
    am_rounds_accuracy(report, "round", &grid, &what);
    am_rows_tasks(report, "iterative", &rows);
    am_rounds_read(report, "round", "noise_energy", 1, &measured);
    read_ratios(report, &ratios);
    int rc = am_grid_finish(&grid);
    AM_KEEP(am_grid_finish(&rows));
    AM_KEEP(am_grid_finish(&ratios));
    AM_KEEP(am_grid_finish(&measured));
    if (rc == 0) {
        am_html_heading(html, "DARE, iterated");
        am_html_paragraph(html,
                          "DARE drops a share p of each task vector at random and scales the "
                          "rest by 1/(1\u2212p): right on average, with noise that the next round "
                          "starts from.");
        for (int s = 0; s < measured.n; s++) {
            const char *name = measured.series[s].name;
            const am_series *series = am_grid_find(&grid, name);
            const am_series *ratio = am_grid_find(&ratios, name);
            if (series != NULL) {
                claim_collapse(&grid, series, what, html);
                compare(&grid, &measured, series, html);
            }
            if (ratio != NULL) {
                claim_noise(&ratios, ratio, html);
            }
        }
        write_table(report, &grid, &rows, &ratios, what, html);
        am_html_raw(html, "<div class=\"plots\">\n");
        am_plot_lines(html, &(am_plot){.caption = "Accuracy by round.", .x = "round", .y = what},
                      &grid);
        rc = plot_noise(report, html);
        am_html_raw(html, "</div>\n");
    }
    am_grid_free(&grid);
    am_grid_free(&rows);
    am_grid_free(&ratios);
    am_grid_free(&measured);
    return rc;
}

const am_report_page am_report_page_dare = {
    .name = "dare",
    .job = "iterate",
    .title = "DARE, iterated: accuracy and noise",
    .rules = am_rounds_rules,
    .write = write_page,
};
