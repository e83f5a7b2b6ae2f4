/* Largest eigenvalues of Hessians. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include "jobs/report/plot.h"
#include "jobs/report/theory.h"
#include "mpi/error.h"

/* "T 3, base, task a", "T 3, alpha 0.3, sum of the tasks". */
static void place_name(const json_t *spectrum, char out[AM_THEORY_NAME])
{
    const double alpha = am_member_number(spectrum, "alpha");
    const char *task = am_member_text(spectrum, "task");
    int at = snprintf(out, AM_THEORY_NAME, "T %.6g, ", am_member_number(spectrum, "tasks"));
    if (am_is_text(spectrum, "at", "base") || isnan(alpha)) {
        at += snprintf(out + at, (size_t)(AM_THEORY_NAME - at), "base, ");
    } else {
        at += snprintf(out + at, (size_t)(AM_THEORY_NAME - at), "end of alpha %.6g, ", alpha);
    }
    snprintf(out + at, (size_t)(AM_THEORY_NAME - at), "%.40s",
             task != NULL ? task : "sum of the tasks");
}

/* Eigenvalues by their index from 1; sums: only those of sums of tasks. */
static void read_spectra(const am_report *report, bool sums, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *spectra = json_object_get(report->run[r].result, "spectra");
        for (size_t i = 0; i < json_array_size(spectra); i++) {
            const json_t *spectrum = json_array_get(spectra, i);
            const json_t *values = json_object_get(spectrum, "eigenvalues");
            if (sums && am_member_text(spectrum, "task") != NULL) {
                continue;
            }
            char name[AM_THEORY_NAME];
            place_name(spectrum, name);
            for (size_t k = 0; k < json_array_size(values); k++) {
                am_grid_put(grid, name, (double)k + 1, r, am_item_number(values, k));
            }
        }
    }
}

int am_theory_page_spectra(const am_report *report, am_html *html)
{
    static const char *const heads[] = {"Hessian of", "largest", "second", "last"};
    am_grid all = {.runs = report->n}, sums = {.runs = report->n};
    read_spectra(report, false, &all);
    read_spectra(report, true, &sums);
    int rc = am_grid_finish(&all);
    AM_KEEP(am_grid_finish(&sums));
    if (rc == 0 && am_grid_has(&all)) {
        am_html_heading(html, "Spectra of Hessians");
        am_html_raw(html, "<div class=\"plots\">\n");
        am_plot_lines(html,
                      &(am_plot){.caption = "Largest eigenvalues of the Hessian of the sum of the "
                                            "tasks, at the base and where the joint descent ends.",
                                 .x = "index",
                                 .y = "eigenvalue"},
                      &sums);
        am_html_raw(html, "</div>\n");
        am_html_table(html, "Largest eigenvalues, and the smallest of those that were sought",
                      heads, 4);
        for (int s = 0; s < all.n; s++) {
            const am_series *series = &all.series[s];
            am_html_row(html, series->name);
            am_html_stat(html, am_grid_stat(&all, series->name, 1), 4);
            am_html_stat(html, am_grid_stat(&all, series->name, 2), 4);
            am_html_stat(html, am_grid_stat(&all, series->name, series->x[series->n - 1]), 4);
            am_html_row_end(html);
        }
        am_html_table_end(html);
    }
    am_grid_free(&all);
    am_grid_free(&sums);
    return rc;
}
