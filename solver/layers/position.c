/* Position embedding: y[b,t,:] = x[b,t,:] + P[t,:], one learned row for every position.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

typedef struct am_position {
    double sigma;
} am_position;

static const am_param attrs[] = {
    {"sigma", AM_PARAM_REAL, offsetof(am_position, sigma), "0.02", 0, 1e6, NULL,
     "deviation of the initial values"},
    {0},
};

static int am_position_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    return s->in[0].n == 2
               ? 0
               : am_layer_fail(s, "takes positions [T,F], not %s", am_shape_text(&s->in[0]));
}

static int am_position_params(const am_layer_site *s, am_layer_param *p)
{
    p[0] = (am_layer_param){.suffix = "weight", .n = 2};
    p[0].d[0] = s->in[0].d[0];
    p[0].d[1] = s->in[0].d[1];
    p[0].sigma = ((const am_position *)s->attrs)->sigma;
    return 1;
}

/* y[b] = x[b] (NULL: 0) + P */
static void am_position_apply(const am_layer_args *a, const real *x, const real *P, real *y)
{
    const int64_t n = am_shape_numel(&a->site->out);
    for (int64_t b = 0; b < a->B; b++) {
        memcpy(y + b * n, P, (size_t)n * sizeof(real));
    }
    if (x != NULL) {
        AM_R(am_layer_sum)(a->B * n, x, y);
    }
}

static void am_position_forward(const am_layer_args *a)
{
    am_position_apply(a, a->x[0], a->param[0], a->y);
}

/* dP = sum over b of dy[b];  dx = dy */
static void am_position_backward(const am_layer_args *a)
{
    const int64_t n = am_shape_numel(&a->site->out);
    AM_R(am_layer_column_sum)(a->B, n, a->dy, a->dparam[0]);
    if (a->dx[0] != NULL && a->dx[0] != a->dy) {
        memcpy(a->dx[0], a->dy, (size_t)(a->B * n) * sizeof(real));
    }
}

static void am_position_tangent(const am_layer_args *a)
{
    am_position_apply(a, a->x_dot[0], a->param_dot[0], a->y_dot);
}

static void am_position_curve(const am_layer_args *a)
{
    const am_layer_args dots = AM_R(am_layer_dots)(a);
    am_position_backward(&dots);
}

const am_layer AM_R(am_layer_position) = {
    .name = "position",
    .summary = "add a learned row for every position",
    .attrs = attrs,
    .inputs = 1,
    .is_elementwise = true,
    .axes = {.rule = AM_AXES_SAME, .param = {{AM_AXIS_FIXED, AM_AXIS_OUT}}},
    .shape = am_position_shape,
    .params = am_position_params,
    .forward = am_position_forward,
    .backward = am_position_backward,
    .tangent = am_position_tangent,
    .curve = am_position_curve,
};
