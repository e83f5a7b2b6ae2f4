/* Gradients, updates and speed of training, from its epochs. SPDX-License-Identifier: BSD-3-Clause
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "jobs/report/page.h"
#include "jobs/report/plot.h"
#include "mpi/error.h"

/* A member of the epochs of a phase by epoch, a series a task. */
static void read_epochs(const am_report *report, const char *phase, const char *y, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *events = report->run[r].events;
        for (size_t i = 0; i < json_array_size(events); i++) {
            const json_t *event = json_array_get(events, i);
            if (am_is_text(event, "event", "epoch") && am_is_text(event, "phase", phase)) {
                const char *task = am_member_text(event, "task");
                am_grid_put(grid, task != NULL ? task : "all tasks together",
                            am_member_number(event, "epoch") + 1, r, am_member_number(event, y));
            }
        }
    }
}

static int plot_phase(const am_report *report, const char *phase, const char *what, am_html *html)
{
    static const struct measure {
        const char *key, *title, *caption;
    } measures[] = {
        {"gradient_norm_mean", "gradient norm",
         "norm of the gradient of a batch, mean over the steps of an epoch, before clipping"},
        {"update_energy", "update energy",
         "squared norms of the steps' updates of the trunk, summed over an epoch"}};
    int rc = 0;
    for (int m = 0; m < 2 && rc == 0; m++) {
        am_grid grid = {.runs = report->n};
        char caption[200];
        read_epochs(report, phase, measures[m].key, &grid);
        snprintf(caption, sizeof caption, "%s: %s.", what, measures[m].caption);
        am_plot_lines(
            html,
            &(am_plot){.caption = caption, .x = "epoch", .y = measures[m].title, .log_y = true},
            &grid);
        rc = am_grid_finish(&grid);
        am_grid_free(&grid);
    }
    return rc;
}

/* Samples and seconds of all epochs of a phase: their quotient is the speed of a task group. */
static void read_speed(const am_report *report, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *events = report->run[r].events;
        for (size_t i = 0; i < json_array_size(events); i++) {
            const json_t *event = json_array_get(events, i);
            const char *phase = am_member_text(event, "phase");
            if (!am_is_text(event, "event", "epoch") || phase == NULL) {
                continue;
            }
            static const char *const keys[] = {"samples", "train_seconds"};
            for (int k = 0; k < 2; k++) {
                const double *values = am_grid_at(grid, phase, k);
                const double before = values != NULL && !isnan(values[r]) ? values[r] : 0;
                am_grid_put(grid, phase, k, r, before + am_member_number(event, keys[k]));
            }
        }
    }
}

static int write_speed(const am_report *report, am_html *html)
{
    static const char *const heads[] = {"phase", "samples", "seconds", "samples/s"};
    am_grid sums = {.runs = report->n};
    read_speed(report, &sums);
    int rc = am_grid_finish(&sums);
    if (rc == 0 && am_grid_has(&sums)) {
        am_html_table(html,
                      "Speed of training, of one task group; a mean over the runs is of these "
                      "runs, not of the machine",
                      heads, 4);
        for (int s = 0; s < sums.n; s++) {
            const am_series *series = &sums.series[s];
            am_grid speed = {.runs = report->n};
            const double *samples = am_grid_at(&sums, series->name, 0);
            const double *seconds = am_grid_at(&sums, series->name, 1);
            for (int r = 0; r < report->n && samples != NULL && seconds != NULL; r++) {
                if (seconds[r] > 0) {
                    am_grid_put(&speed, "", 0, r, samples[r] / seconds[r]);
                }
            }
            am_html_row(html, series->name);
            am_html_stat(html, am_grid_stat(&sums, series->name, 0), 0);
            am_html_stat(html, am_grid_stat(&sums, series->name, 1), 2);
            am_html_stat(html, am_grid_stat(&speed, "", 0), 0);
            am_html_row_end(html);
            AM_KEEP(am_grid_finish(&speed));
            am_grid_free(&speed);
        }
        am_html_table_end(html);
    }
    am_grid_free(&sums);
    return rc;
}

static bool has_epochs(const am_report *report)
{
    const json_t *events = report->run[0].events;
    for (size_t i = 0; i < json_array_size(events); i++) {
        if (am_is_text(json_array_get(events, i), "event", "epoch")) {
            return true;
        }
    }
    return false;
}

int am_section_training(const am_report *report, am_html *html)
{
    if (!has_epochs(report)) {
        return 0;
    }
    am_html_heading(html, "Training");
    am_html_raw(html, "<div class=\"plots\">\n");
    int rc = plot_phase(report, "one_shot", "One-shot finetuning", html);
    AM_KEEP(plot_phase(report, "joint", "Joint training", html));
    AM_KEEP(plot_phase(report, "train", "Training", html));
    am_html_raw(html, "</div>\n");
    AM_KEEP(write_speed(report, html));
    return rc;
}
