/* Series over x for every run: see grid.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"

static am_series *series_of(am_grid *grid, const char *name)
{
    for (int i = grid->n - 1; i >= 0; i--) { /* the last one is asked for most */
        if (strcmp(grid->series[i].name, name) == 0) {
            return &grid->series[i];
        }
    }
    if (grid->n == grid->capacity) {
        const int capacity = 2 * grid->capacity + 8;
        am_series *grown = realloc(grid->series, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            return NULL;
        }
        grid->series = grown;
        grid->capacity = capacity;
    }
    char *own = strdup(name);
    if (own == NULL) {
        return NULL;
    }
    grid->series[grid->n] = (am_series){.name = own};
    return &grid->series[grid->n++];
}

/* Index of the first point that is not below x. */
static int place_of(const am_series *series, double x)
{
    int lo = 0, hi = series->n;
    while (lo < hi) {
        const int middle = (lo + hi) / 2;
        if (series->x[middle] < x) {
            lo = middle + 1;
        } else {
            hi = middle;
        }
    }
    return lo;
}

static bool make_room(const am_grid *grid, am_series *series)
{
    if (series->n < series->capacity) {
        return true;
    }
    const int capacity = 2 * series->capacity + 8;
    double *x = realloc(series->x, (size_t)capacity * sizeof *x);
    if (x == NULL) {
        return false;
    }
    series->x = x;
    double *values = realloc(series->values, (size_t)capacity * grid->runs * sizeof *values);
    if (values == NULL) {
        return false;
    }
    series->values = values;
    series->capacity = capacity;
    return true;
}

static double *point_of(const am_grid *grid, am_series *series, double x)
{
    const int at = place_of(series, x), runs = grid->runs;
    if (at == series->n || series->x[at] != x) {
        if (!make_room(grid, series)) {
            return NULL;
        }
        const size_t after = (size_t)(series->n - at);
        memmove(series->x + at + 1, series->x + at, after * sizeof *series->x);
        memmove(series->values + (at + 1) * runs, series->values + at * runs,
                after * (size_t)runs * sizeof *series->values);
        series->x[at] = x;
        for (int r = 0; r < runs; r++) {
            series->values[at * runs + r] = NAN;
        }
        series->n++;
    }
    return series->values + at * runs;
}

static am_series *put(am_grid *grid, const char *name, double x, int run, double value)
{
    am_series *series = grid->failed ? NULL : series_of(grid, name);
    double *point = series != NULL ? point_of(grid, series, x) : NULL;
    if (point == NULL) {
        grid->failed = true;
        return NULL;
    }
    point[run] = value;
    return series;
}

void am_grid_put(am_grid *grid, const char *name, double x, int run, double value)
{
    if (!isnan(x) && !isnan(value)) {
        (void)put(grid, name, x, run, value);
    }
}

void am_grid_level(am_grid *grid, const char *name, int run, double value)
{
    am_series *series = isnan(value) ? NULL : put(grid, name, 0, run, value);
    if (series != NULL) {
        series->is_level = true;
    }
}

const am_series *am_grid_find(const am_grid *grid, const char *name)
{
    for (int i = 0; i < grid->n; i++) {
        if (strcmp(grid->series[i].name, name) == 0) {
            return &grid->series[i];
        }
    }
    return NULL;
}

const double *am_grid_values(const am_grid *grid, const am_series *series, int i)
{
    return series->values + i * grid->runs;
}

const double *am_grid_at(const am_grid *grid, const char *name, double x)
{
    const am_series *series = am_grid_find(grid, name);
    const int at = series != NULL ? place_of(series, x) : 0;
    return series != NULL && at < series->n && series->x[at] == x ? am_grid_values(grid, series, at)
                                                                  : NULL;
}

am_stat am_grid_stat(const am_grid *grid, const char *name, double x)
{
    const double *values = am_grid_at(grid, name, x);
    return values != NULL ? am_stat_of(values, grid->runs) : (am_stat){.mean = NAN, .error = NAN};
}

am_stat am_grid_paired(const am_grid *grid, const char *a, double x, const char *b, double y)
{
    const double *first = am_grid_at(grid, a, x), *second = am_grid_at(grid, b, y);
    return first != NULL && second != NULL ? am_stat_paired(first, second, grid->runs)
                                           : (am_stat){.mean = NAN, .error = NAN};
}

bool am_grid_has(const am_grid *grid)
{
    return grid->n > 0;
}

int am_grid_finish(const am_grid *grid)
{
    return grid->failed ? am_fail(AM_E_NOMEM, "out of memory for a series of the report") : 0;
}

void am_grid_free(am_grid *grid)
{
    for (int i = 0; i < grid->n; i++) {
        free(grid->series[i].name);
        free(grid->series[i].x);
        free(grid->series[i].values);
    }
    free(grid->series);
    *grid = (am_grid){0};
}
