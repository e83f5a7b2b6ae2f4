/* One row from all positions: their mean, or the first or last of them. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

typedef struct am_pool_positions {
    int take;
} am_pool_positions;
enum { AM_TAKE_MEAN, AM_TAKE_FIRST, AM_TAKE_LAST };

static const am_param attrs[] = {
    {"take", AM_PARAM_CHOICE, offsetof(am_pool_positions, take), "mean", 0, 0, "mean|first|last",
     "which positions"},
    {0},
};

static int am_pool_positions_shape(const am_layer_site *s, am_shape *out)
{
    *out = (am_shape){.n = 1, .d = {am_shape_features(&s->in[0])}};
    return 0;
}

/* Rows [lo, hi) that are averaged. */
static void am_pool_positions_rows(const am_layer_args *a, int64_t *lo, int64_t *hi)
{
    const int take = ((const am_pool_positions *)a->site->attrs)->take;
    const int64_t R = am_shape_rows(&a->site->in[0]);
    *lo = take == AM_TAKE_LAST ? R - 1 : 0;
    *hi = take == AM_TAKE_FIRST ? 1 : R;
}

static void am_pool_positions_apply(const am_layer_args *a, const real *x, real *y)
{
    const int64_t F = am_shape_features(&a->site->out), n = am_shape_numel(&a->site->in[0]);
    int64_t lo, hi;
    am_pool_positions_rows(a, &lo, &hi);
    const real share = 1 / (real)(hi - lo);
    for (int64_t b = 0; b < a->B; b++) {
        real *row = y + b * F;
        AM_R(am_layer_column_sum)(hi - lo, F, x + b * n + lo * F, row);
        for (int64_t f = 0; f < F; f++) {
            row[f] *= share;
        }
    }
}

static void am_pool_positions_forward(const am_layer_args *a)
{
    am_pool_positions_apply(a, a->x[0], a->y);
}

static void am_pool_positions_backward(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->out), n = am_shape_numel(&a->site->in[0]);
    int64_t lo, hi;
    am_pool_positions_rows(a, &lo, &hi);
    const real share = 1 / (real)(hi - lo);
    memset(a->dx[0], 0, (size_t)(a->B * n) * sizeof(real));
    for (int64_t b = 0; b < a->B; b++) {
        for (int64_t r = lo; r < hi; r++) {
            for (int64_t f = 0; f < F; f++) {
                a->dx[0][b * n + r * F + f] = share * a->dy[b * F + f];
            }
        }
    }
}

static void am_pool_positions_tangent(const am_layer_args *a)
{
    am_pool_positions_apply(a, a->x_dot[0], a->y_dot);
}

static void am_pool_positions_curve(const am_layer_args *a)
{
    const am_layer_args dots = AM_R(am_layer_dots)(a);
    am_pool_positions_backward(&dots);
}

const am_layer AM_R(am_layer_pool_positions) = {
    .name = "pool_positions",
    .summary = "mean, first or last of all positions or pixels",
    .attrs = attrs,
    .inputs = 1,
    .axes = {.rule = AM_AXES_SAME},
    .shape = am_pool_positions_shape,
    .forward = am_pool_positions_forward,
    .backward = am_pool_positions_backward,
    .tangent = am_pool_positions_tangent,
    .curve = am_pool_positions_curve,
};
