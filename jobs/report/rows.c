/* Rows and rounds as grids: see rows.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/rows.h"

#include <math.h>
#include <string.h>

const am_rule am_rounds_rules[] = {{"rows", AM_RULE_ROWS},
                                   {"rows[].key", AM_RULE_NAME},
                                   {"rows[].phase", AM_RULE_TEXT},
                                   {"rows[].method", AM_RULE_TEXT},
                                   {"rounds", AM_RULE_LIST},
                                   {"rounds[].key", AM_RULE_NAME},
                                   {"rounds[].name", AM_RULE_TEXT},
                                   {"rounds[].method", AM_RULE_TEXT},
                                   {"rounds[].alpha", AM_RULE_NUMBER},
                                   {"rounds[].round", AM_RULE_NUMBER},
                                   {"rounds[].round_epochs", AM_RULE_NUMBER},
                                   {"rounds[].points", AM_RULE_ROWS},
                                   {"rounds[].points[].round", AM_RULE_NUMBER},
                                   {"rounds[].points[].epochs", AM_RULE_NUMBER},
                                   {"rounds[].points[].test_accuracy", AM_RULE_NUMBER},
                                   {"rounds[].points[].validation_accuracy", AM_RULE_NUMBER},
                                   {"rounds[].points[].noise_energy", AM_RULE_NUMBER},
                                   {"rounds[].points[].noise_expected", AM_RULE_NUMBER},
                                   {0}};

void am_rows_lengths(const am_report *report, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *rows = json_object_get(report->run[r].result, "rows");
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            const char *method = am_member_text(row, "method");
            if (strncmp(am_member_text(row, "key"), "one_shot_", strlen("one_shot_")) == 0) {
                am_grid_put(grid, method != NULL ? method : "merge",
                            am_member_number(row, "epochs"), r,
                            100 * am_member_number(row, "test_accuracy"));
            }
        }
    }
}

void am_rows_level(const am_report *report, const char *key, const char *name, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *rows = json_object_get(report->run[r].result, "rows");
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            if (am_is_text(row, "key", key)) {
                am_grid_level(grid, name, r, 100 * am_member_number(row, "test_accuracy"));
            }
        }
    }
}

void am_rows_tasks(const am_report *report, const char *prefix, am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *rows = json_object_get(report->run[r].result, "rows");
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            const json_t *tasks = json_object_get(row, "task_accuracy");
            const char *key = am_member_text(row, "key");
            if (strncmp(key, prefix, strlen(prefix)) != 0) {
                continue;
            }
            am_grid_put(grid, key, -1, r, 100 * am_member_number(row, "test_accuracy"));
            for (size_t t = 0; t < json_array_size(tasks); t++) {
                am_grid_put(grid, key, (double)t, r, 100 * am_item_number(tasks, t));
            }
        }
    }
}

/* For people, unique among the runs. */
static const char *rounds_name(const json_t *run)
{
    const char *name = am_member_text(run, "name");
    return name != NULL ? name : am_member_text(run, "key");
}

void am_rounds_read(const am_report *report, const char *x, const char *y, double factor,
                    am_grid *grid)
{
    for (int r = 0; r < report->n; r++) {
        const json_t *rounds = json_object_get(report->run[r].result, "rounds");
        for (size_t i = 0; i < json_array_size(rounds); i++) {
            const json_t *run = json_array_get(rounds, i);
            const json_t *points = json_object_get(run, "points");
            for (size_t p = 0; p < json_array_size(points); p++) {
                const json_t *point = json_array_get(points, p);
                am_grid_put(grid, rounds_name(run), am_member_number(point, x), r,
                            factor * am_member_number(point, y));
            }
        }
    }
}

void am_rounds_accuracy(const am_report *report, const char *x, am_grid *grid, const char **what)
{
    am_rounds_read(report, x, "test_accuracy", 100, grid);
    *what = "test accuracy (%)";
    if (!am_grid_has(grid)) {
        am_rounds_read(report, x, "validation_accuracy", 100, grid);
        *what = "validation accuracy (%)";
    }
}

const json_t *am_rounds_find(const am_report *report, const char *name)
{
    const json_t *rounds = am_report_member(report, "rounds");
    for (size_t i = 0; i < json_array_size(rounds); i++) {
        const json_t *run = json_array_get(rounds, i);
        if (strcmp(rounds_name(run), name) == 0) {
            return run;
        }
    }
    return NULL;
}

am_stat am_rounds_chosen(const am_report *report, const am_grid *rows, const char *name)
{
    const char *key = am_member_text(am_rounds_find(report, name), "key");
    return am_grid_stat(rows, key != NULL ? key : name, -1);
}

double am_series_last(const am_series *series)
{
    return series->n > 0 ? series->x[series->n - 1] : NAN;
}
