/* Values of named series over x, one for every run: what tables and plots are made of. A value put
 * twice counts as put last (an interrupted run tells some events again). Out of memory is
 * remembered and told by am_grid_finish. Local. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_GRID_H
#define AM_JOBS_REPORT_GRID_H

#include <stdbool.h>
#include "jobs/report/stats.h"

typedef struct am_series {
    char *name;         /* owned */
    bool is_level;      /* one value for all x: a dashed line across a plot */
    int n, capacity;    /* points, ascending in x */
    double *x, *values; /* owned: [n], [n][runs] */
} am_series;

typedef struct am_grid {
    int runs, n, capacity;
    am_series *series; /* owned, in the order of their first values */
    bool failed;
} am_grid;

/* Start with `am_grid g = {.runs = n};`, end with am_grid_free. */
void am_grid_put(am_grid *grid, const char *name, double x, int run, double value);
/** The value of a level. */
void am_grid_level(am_grid *grid, const char *name, int run, double value);
/** NULL if there is none. */
const am_series *am_grid_find(const am_grid *grid, const char *name);
/** Values [runs] of a point; NULL if there is none. */
const double *am_grid_at(const am_grid *grid, const char *name, double x);
/** Values [runs] of point i of a series. */
const double *am_grid_values(const am_grid *grid, const am_series *series, int i);
/** Mean and standard error of a point; of no values if there is none. */
am_stat am_grid_stat(const am_grid *grid, const char *name, double x);
/** Of the differences of two points, paired by run. */
am_stat am_grid_paired(const am_grid *grid, const char *a, double x, const char *b, double y);
/** Is there any value? */
bool am_grid_has(const am_grid *grid);
/** 0 or AM_E_NOMEM. */
int am_grid_finish(const am_grid *grid);
void am_grid_free(am_grid *grid);

#endif
