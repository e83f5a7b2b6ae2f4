/* |C| against its bounds. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include "jobs/report/plot.h"
#include "jobs/report/theory.h"
#include "mpi/error.h"

/* |C| / bound where it was measured, at the largest such share over eta: over k, a series a T and
 * alpha. */
static void read_shares(const am_report *report, const char *bound, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *rows = json_object_get(report->run[r].result, "rows");
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            const double most = am_member_number(row, bound), k = am_member_number(row, "k");
            if (most > 0) {
                char name[AM_THEORY_NAME];
                am_theory_place(row, name);
                const double *there = am_grid_at(grid, name, k);
                const double before = there != NULL ? there[r] : NAN;
                am_grid_put(grid, name, k, r, fmax(before, am_member_number(row, "c") / most));
            }
        }
    }
}

static double largest(const am_grid *grid, int *above, int *n)
{
    double most = NAN;
    *above = *n = 0;
    for (int s = 0; s < grid->n; s++) {
        for (int i = 0; i < grid->series[s].n; i++) {
            const double *values = am_grid_values(grid, &grid->series[s], i);
            for (int r = 0; r < grid->runs; r++) {
                most = fmax(most, values[r]);
                *above += values[r] > 1;
                *n += !isnan(values[r]);
            }
        }
    }
    return most;
}

static void plot_shares(am_html *html, const am_grid *grid, const char *caption)
{
    am_plot_lines(html, &(am_plot){.caption = caption, .x = "k", .y = "|C| / bound", .log_y = true},
                  grid);
}

static void write_claims(const am_grid *derived, const am_grid *printed, const am_grid *network,
                         am_html *html)
{
    int above, n;
    double most = largest(derived, &above, &n);
    if (n > 0) {
        am_html_claim(
            html, above == 0 ? AM_HOLDS : AM_FAILS,
            "|C| is within the derived bound T (h+1)(h+2)/2 (1 + alpha T) H G: it comes up to "
            "%.3g of it, and is above it in %d of %d settings.",
            most, above, n);
    }
    most = largest(printed, &above, &n);
    if (n > 0) {
        am_html_claim(
            html, above == 0 ? AM_HOLDS : AM_FAILS,
            "|C| is within the printed bound T (h+2)/2 |alpha T + 1| H G: it comes up to %.3g "
            "of it, and is above it in %d of %d settings (it grows with k where |C| "
            "grows with k squared).",
            most, above, n);
    }
    most = largest(network, &above, &n);
    if (n > 0) {
        am_html_paragraph(html,
                          "With H and G from the norms of the weights in place of measured ones, "
                          "|C| comes up to %.3g of the derived bound.",
                          most);
    }
}

int am_theory_page_bounds(const am_report *report, am_html *html)
{
    am_grid derived = {.runs = report->n}, printed = {.runs = report->n};
    am_grid network = {.runs = report->n};
    read_shares(report, "bound_derived", &derived);
    read_shares(report, "bound_printed", &printed);
    read_shares(report, "network_bound_derived", &network);
    int rc = am_grid_finish(&derived);
    AM_KEEP(am_grid_finish(&printed));
    AM_KEEP(am_grid_finish(&network));
    if (rc == 0 && (am_grid_has(&derived) || am_grid_has(&network))) {
        am_html_heading(html, "Theorem 2: bounds of |C|");
        write_claims(&derived, &printed, &network, html);
        for (int r = 0; r < report->n && am_grid_has(&printed); r++) {
            am_grid_level(&printed, "the bound", r, 1);
        }
        am_html_raw(html, "<div class=\"plots\">\n");
        plot_shares(html, &derived, "|C| as a share of the derived bound, by k.");
        plot_shares(html, &printed, "|C| as a share of the printed bound, by k: above 1 it fails.");
        am_html_raw(html, "</div>\n");
        rc = am_grid_finish(&printed);
    }
    am_grid_free(&derived);
    am_grid_free(&printed);
    am_grid_free(&network);
    return rc;
}
