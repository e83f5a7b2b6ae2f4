/* Rows and rounds of iterate's result as grids (jobs/training/README.md says what they hold).
 * Accuracies are in percent. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_ROWS_H
#define AM_JOBS_REPORT_ROWS_H

#include "jobs/report/grid.h"
#include "jobs/report/page.h"

/** Test accuracy of one-shot merges: a series a method, over the epochs. */
void am_rows_lengths(const am_report *report, am_grid *grid);
/** Test accuracy of the row `key` as a level `name` of a grid. */
void am_rows_level(const am_report *report, const char *key, const char *name, am_grid *grid);
/** Test accuracies of the rows with a key that begins with `prefix`: series are the keys, x the
 * tasks from 0, and -1 their mean. */
void am_rows_tasks(const am_report *report, const char *prefix, am_grid *grid);
/** A member of the points of every run of rounds, times `factor`: a series a name of `rounds`,
 * over the member x ("round", "epochs"). */
void am_rounds_read(const am_report *report, const char *x, const char *y, double factor,
                    am_grid *grid);
/** Accuracy by rounds: of test data where the run has it (curve: yes), else of validation data;
 * *what names it. */
void am_rounds_accuracy(const am_report *report, const char *x, am_grid *grid, const char **what);
/** The object of `rounds` with this name; NULL: none. */
const json_t *am_rounds_find(const am_report *report, const char *name);
/** Its chosen round: the mean test accuracy of its row in a grid of am_rows_tasks. */
am_stat am_rounds_chosen(const am_report *report, const am_grid *rows, const char *name);
/** Last x of a series. */
double am_series_last(const am_series *series);

/** A page on the length of one-shot finetuning: table, plots, claims (lengths.c). */
typedef struct am_published {
    const char *method; /* begins the name of a method; "" is any */
    double points;      /* what the longest gains over one epoch in the paper */
    const char *of;     /* what it was measured of */
} am_published;
int am_page_lengths(const am_report *report, const am_published *published, am_html *html);

extern const am_rule am_rounds_rules[]; /* of `rounds` and of what rows have beyond run.c's */

#endif
