/* Task vectors of merges: cosines and norms. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/report/page.h"
#include "jobs/report/plot.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { NAME = 96 };

/* A merge's place: its phase and alpha; its step is the number of epochs, or the round. */
static void series_name(const json_t *event, char out[NAME])
{
    const char *phase = am_member_text(event, "phase");
    const double alpha = am_member_number(event, "alpha");
    const int at = snprintf(out, NAME, "%.60s", phase != NULL ? phase : "merge");
    if (!isnan(alpha)) {
        snprintf(out + at, (size_t)(NAME - at), ", alpha %.6g", alpha);
    }
}

/* Events do not tell several runs of rounds apart. */
static bool is_told(const am_report *report, const json_t *event)
{
    return am_is_text(event, "event", "task_vectors") &&
           (!am_is_text(event, "phase", "iterate") ||
            json_array_size(am_report_member(report, "rounds")) <= 1);
}

static double mean_cosine(const json_t *event)
{
    const json_t *rows = json_object_get(event, "cosines");
    double sum = 0;
    int n = 0;
    for (size_t a = 0; a < json_array_size(rows); a++) {
        for (size_t b = 0; b < a; b++) {
            const double cosine = am_item_number(json_array_get(rows, a), b);
            sum += isnan(cosine) ? 0 : cosine;
            n += !isnan(cosine);
        }
    }
    return n > 0 ? sum / n : NAN;
}

static double mean_norm(const json_t *event)
{
    const json_t *norms = json_object_get(event, "norms");
    const size_t n = json_array_size(norms);
    double sum = 0;
    for (size_t t = 0; t < n; t++) {
        sum += am_item_number(norms, t);
    }
    return n > 0 ? sum / (double)n : NAN;
}

/* One number a merge over its step. */
static void read_steps(const am_report *report, double (*measure)(const json_t *), am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *events = report->run[r].events;
        for (size_t i = 0; i < json_array_size(events); i++) {
            const json_t *event = json_array_get(events, i);
            if (is_told(report, event)) {
                char name[NAME];
                series_name(event, name);
                am_grid_put(grid, name, am_member_number(event, "step"), r, measure(event));
            }
        }
    }
}

static int plot_steps(const am_report *report, am_html *html)
{
    am_grid cosines = {.runs = report->n}, norms = {.runs = report->n};
    read_steps(report, mean_cosine, &cosines);
    read_steps(report, mean_norm, &norms);
    am_plot_lines(html,
                  &(am_plot){.caption = "Mean cosine between task vectors of different tasks, by "
                                        "epochs of a one-shot merge or by round.",
                             .x = "epochs, or round",
                             .y = "mean cosine"},
                  &cosines);
    am_plot_lines(html,
                  &(am_plot){.caption = "Norm of the task vectors, mean over the tasks.",
                             .x = "epochs, or round",
                             .y = "norm"},
                  &norms);
    int rc = am_grid_finish(&cosines);
    AM_KEEP(am_grid_finish(&norms));
    am_grid_free(&cosines);
    am_grid_free(&norms);
    return rc;
}

/* Mean over the runs of the cosines of one merge. Returns how many runs have it. */
static int mean_matrix(const am_report *report, const char *name, double step, int n, double *out)
{
    int runs = 0;
    for (int i = 0; i < n * n; i++) {
        out[i] = 0;
    }
    for (int r = 0; r < report->n; r++) {
        const json_t *found = NULL, *events = report->run[r].events;
        for (size_t i = 0; i < json_array_size(events); i++) {
            const json_t *event = json_array_get(events, i);
            char own[NAME];
            if (is_told(report, event) && am_member_number(event, "step") == step) {
                series_name(event, own);
                found = strcmp(own, name) == 0 ? event : found;
            }
        }
        const json_t *rows = json_object_get(found, "cosines");
        for (int i = 0; i < n * n && rows != NULL; i++) {
            out[i] += am_item_number(json_array_get(rows, (size_t)(i / n)), (size_t)(i % n));
        }
        runs += rows != NULL;
    }
    for (int i = 0; i < n * n; i++) {
        out[i] /= runs;
    }
    return runs;
}

static int plot_cosines(const am_report *report, const char *const *tasks, int n, const char *name,
                        double step, am_html *html)
{
    const bool is_round = strncmp(name, "iterate", strlen("iterate")) == 0;
    double *matrix = am_new((int64_t)n * n + 1, sizeof *matrix, "cosines");
    if (matrix == NULL) {
        return AM_E_NOMEM;
    }
    const int runs = mean_matrix(report, name, step, n, matrix);
    char caption[256];
    snprintf(caption, sizeof caption, "Cosines between task vectors: %s, %s %.6g%s.", name,
             is_round ? "round" : "epochs", step, runs > 1 ? " (mean over the seeds)" : "");
    if (runs > 0) {
        am_plot_heat(html, &(am_heat){.caption = caption,
                                      .rows = tasks,
                                      .columns = tasks,
                                      .n_rows = n,
                                      .n_columns = n,
                                      .value = matrix,
                                      .most = 1,
                                      .digits = 2});
    }
    free(matrix);
    return 0;
}

/* Is it the merge that was chosen? Of rounds the one with the alpha of the row `iterative`. */
static bool is_chosen(const am_report *report, const char *name)
{
    const json_t *rows = am_report_member(report, "rows");
    char end[NAME];
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (am_is_text(row, "key", "iterative")) {
            snprintf(end, sizeof end, ", alpha %.6g", am_member_number(row, "alpha"));
            const size_t length = strlen(name), tail = strlen(end);
            return length > tail && strcmp(name + length - tail, end) == 0;
        }
    }
    return false;
}

/* The first and the last step of one-shot merges, and of the chosen alpha (of the first seed). */
static int plot_matrices(const am_report *report, am_html *html)
{
    int n, rc = 0;
    am_grid steps = {.runs = report->n};
    const char **tasks = am_report_tasks(report, &n);
    read_steps(report, mean_norm, &steps);
    rc = tasks != NULL ? am_grid_finish(&steps) : AM_E_NOMEM;
    for (int s = 0; s < steps.n && rc == 0; s++) {
        const am_series *series = &steps.series[s];
        if (strcmp(series->name, "one_shot") != 0 && !is_chosen(report, series->name)) {
            continue;
        }
        rc = plot_cosines(report, tasks, n, series->name, series->x[0], html);
        if (series->n > 1) {
            AM_KEEP(plot_cosines(report, tasks, n, series->name, series->x[series->n - 1], html));
        }
    }
    free(tasks);
    am_grid_free(&steps);
    return rc;
}

static bool has_vectors(const am_report *report)
{
    const json_t *events = report->run[0].events;
    for (size_t i = 0; i < json_array_size(events); i++) {
        if (am_is_text(json_array_get(events, i), "event", "task_vectors")) {
            return true;
        }
    }
    return false;
}

int am_section_vectors(const am_report *report, am_html *html)
{
    if (!has_vectors(report)) {
        return 0;
    }
    am_html_heading(html, "Task vectors");
    am_html_raw(html, "<div class=\"plots\">\n");
    int rc = plot_steps(report, html);
    AM_KEEP(plot_matrices(report, html));
    am_html_raw(html, "</div>\n");
    return rc;
}
