/* Spherical interpolation between two models, or between their task vectors: whole tensors, or each
 * vector along their last or their first dimension. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/angles.h"

enum { WEIGHT, FLATTEN, ROW_WISE };

static const am_method_param params[] = {
    [WEIGHT] = {.key = "weight",
                .per_model = true,
                .required = true,
                .low = -1e9,
                .high = 1e9,
                .help = "the place on the arc is the second weight over the sum of both"},
    [FLATTEN] = {.key = "nuslerp_flatten",
                 .is_bool = true,
                 .fallback = 1,
                 .help = "one angle a tensor; else one for each vector along a dimension"},
    [ROW_WISE] = {.key = "nuslerp_row_wise",
                  .is_bool = true,
                  .help = "not flattened: vectors run along the first dimension, else the last"},
    {0}};

/* What has one angle. mergekit's `row_wise` means vectors along the first dimension. */
typedef enum shape { WHOLE, ROWS, COLUMNS, ELEMENTS } shape;

enum { MAX_COLUMNS = 1 << 15 }; /* each has three exact sums, 1,728 bytes */

static int64_t columns(const am_unit *unit)
{
    return unit->n / unit->outer;
}

static shape shape_of(const am_unit *unit)
{
    if (unit->param[FLATTEN] != 0 || unit->scope == AM_SCOPE_GLOBAL || unit->n == 0) {
        return WHOLE;
    }
    if (unit->param[ROW_WISE] == 0) {
        return unit->rows > 1 ? ROWS : WHOLE;
    }
    return columns(unit) == 1 ? WHOLE : unit->outer == 1 ? ELEMENTS : COLUMNS;
}

static bool by_rows(const am_unit *unit)
{
    return shape_of(unit) == ROWS;
}

static bool is_too_wide(const am_unit *unit)
{
    return shape_of(unit) == COLUMNS && columns(unit) > MAX_COLUMNS;
}

/* What is wrong with the parameters of a unit. */
static const char *complaint(const am_unit *unit)
{
    if (unit->param[FLATTEN] == 0 && unit->scope == AM_SCOPE_GLOBAL) {
        return "nuslerp_flatten: false needs scope: tensor";
    }
    return is_too_wide(unit) ? "nuslerp_row_wise takes at most 32768 columns: set it to false, or "
                               "nuslerp_flatten to true"
                             : NULL;
}

static const char *check(const am_tile *tile)
{
    return complaint(tile->unit);
}

static int count(const am_unit *unit)
{
    if (unit->models < 2) {
        return 0;
    }
    switch (shape_of(unit)) {
    case WHOLE:
        return 3;
    case COLUMNS:
        return is_too_wide(unit) ? 1 : 3 * (int)columns(unit); /* 1: refused */
    default:
        return 0;
    }
}

/* Two coefficients an angle. */
static int states(const am_unit *unit)
{
    return shape_of(unit) == COLUMNS && !is_too_wide(unit) ? 2 * (int)columns(unit) : 2;
}

/* Element i of the tile, less the base's. */
static double element(const am_tile *tile, int model, int64_t i)
{
    return tile->base != NULL ? tile->x[model][i] - tile->base[i] : tile->x[model][i];
}

static void add_pair(double a, double b, double *sum)
{
    sum[0] += a * a;
    sum[1] += a * b;
    sum[2] += b * b;
}

static void sums(const am_tile *tile, double *sum)
{
    if (shape_of(tile->unit) == WHOLE) {
        am_tile_gram(tile, sum);
        return;
    }
    const int64_t width = is_too_wide(tile->unit) ? 0 : columns(tile->unit);
    int64_t column = width > 0 ? tile->lo % width : 0;
    for (int64_t i = 0; i < tile->n && width > 0; i++) {
        add_pair(element(tile, 0, i), element(tile, 1, i), sum + 3 * column);
        column = column + 1 < width ? column + 1 : 0;
    }
}

/* Coefficients of the two vectors from their inner products. Lines where f64 cannot tell the angle
 * from 0 or pi. */
static void arc(double t, const double *g, double *c)
{
    static const double SMALLEST = 1e-7; /* length */
    const double product =
        fmax(g[0], SMALLEST * SMALLEST) * fmax(g[2], SMALLEST * SMALLEST); /* squared */
    const double sine_squared = (product - g[1] * g[1]) / product;
    c[0] = 1 - t;
    c[1] = t;
    if (sine_squared > 1e-14) {
        am_arc(t, g[1] / sqrt(product), c);
    }
}

/* The second weight's share; the middle when the weights cancel. */
static double place(const double *const *model_param)
{
    const double total = model_param[0][WEIGHT] + model_param[1][WEIGHT];
    return fabs(total) < 1e-6 ? 0.5 : model_param[1][WEIGHT] / total;
}

static const char *solve(const am_unit *unit)
{
    const char *wrong = complaint(unit);
    if (wrong != NULL) {
        return wrong;
    }
    const int64_t angles = shape_of(unit) == COLUMNS ? columns(unit) : 1;
    for (int64_t k = 0; k < angles; k++) {
        arc(place(unit->model_param), unit->sum + 3 * k, unit->state + 2 * k);
    }
    return NULL;
}

static void combine_rows(const am_tile *tile)
{
    for (int64_t row = 0; row < tile->rows; row++) {
        const double *x[2];
        double g[3] = {0}, c[2];
        const am_tile view = am_tile_row(tile, row, x);
        am_tile_gram(&view, g);
        arc(place(tile->model_param), g, c);
        am_tile_combine(&view, c);
    }
}

static void combine_columns(const am_tile *tile)
{
    const int64_t width = columns(tile->unit);
    int64_t column = tile->lo % width;
    for (int64_t i = 0; i < tile->n; i++) {
        const double *c = tile->unit->state + 2 * column;
        const double from = tile->base != NULL ? tile->base[i] : 0;
        tile->out[i] = c[0] * element(tile, 0, i) + c[1] * element(tile, 1, i) + from;
        column = column + 1 < width ? column + 1 : 0;
    }
}

static void combine_elements(const am_tile *tile)
{
    for (int64_t i = 0; i < tile->n; i++) {
        double g[3] = {0}, c[2];
        add_pair(element(tile, 0, i), element(tile, 1, i), g);
        arc(place(tile->model_param), g, c);
        const double from = tile->base != NULL ? tile->base[i] : 0;
        tile->out[i] = c[0] * element(tile, 0, i) + c[1] * element(tile, 1, i) + from;
    }
}

static void combine(const am_tile *tile)
{
    static const double only[] = {1};
    if (tile->models < 2) { /* nothing to turn towards */
        am_tile_combine(tile, only);
        return;
    }
    switch (shape_of(tile->unit)) {
    case WHOLE:
        am_coefficient_combine(tile);
        break;
    case ROWS:
        combine_rows(tile);
        break;
    case COLUMNS:
        combine_columns(tile);
        break;
    case ELEMENTS:
        combine_elements(tile);
        break;
    }
}

const am_method am_method_nuslerp = {
    .name = "nuslerp",
    .summary = "spherical interpolation of two models, or of their task vectors when there is a "
               "base",
    .source = "mergekit nuslerp: (sin((1 - t) a) x_0 + sin(t a) x_1) / sin(a), t = w_1 / (w_0 + "
              "w_1), a the angle of x_0 and x_1 (task vectors with a base); a line when "
              "sin(a)^2 <= 1e-14",
    .takes_base = true,
    .min_models = 2,
    .max_models = 2,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .by_rows = by_rows,
    .states = states,
    .n_passes = 1,
    .pass = {{.count = count, .sums = sums, .solve = solve}},
    .check = check,
    .combine = combine,
};
