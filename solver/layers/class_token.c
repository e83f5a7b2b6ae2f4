/* A learned first position: [T,F] becomes [T+1,F]. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

static int am_class_token_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    out->d[0]++;
    return s->in[0].n == 2
               ? 0
               : am_layer_fail(s, "takes positions [T,F], not %s", am_shape_text(&s->in[0]));
}

static int am_class_token_params(const am_layer_site *s, am_layer_param *p)
{
    p[0] = (am_layer_param){.suffix = "weight", .n = 1, .d = {s->in[0].d[1]}, .sigma = 0.02};
    return 1;
}

/* y[b] = token, x[b] (NULL: 0) */
static void am_class_token_apply(const am_layer_args *a, const real *x, const real *token, real *y)
{
    const int64_t F = am_shape_features(&a->site->out), n = am_shape_numel(&a->site->in[0]);
    for (int64_t b = 0; b < a->B; b++) {
        real *row = y + b * (n + F);
        memcpy(row, token, (size_t)F * sizeof(real));
        if (x != NULL) {
            memcpy(row + F, x + b * n, (size_t)n * sizeof(real));
        } else {
            memset(row + F, 0, (size_t)n * sizeof(real));
        }
    }
}

static void am_class_token_forward(const am_layer_args *a)
{
    am_class_token_apply(a, a->x[0], a->param[0], a->y);
}

static void am_class_token_backward(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->out), n = am_shape_numel(&a->site->in[0]);
    for (int64_t f = 0; a->dparam[0] != NULL && f < F; f++) {
        double sum = 0;
        for (int64_t b = 0; b < a->B; b++) {
            sum += (double)a->dy[b * (n + F) + f];
        }
        a->dparam[0][f] = (real)sum;
    }
    for (int64_t b = 0; a->dx[0] != NULL && b < a->B; b++) {
        memcpy(a->dx[0] + b * n, a->dy + b * (n + F) + F, (size_t)n * sizeof(real));
    }
}

static void am_class_token_tangent(const am_layer_args *a)
{
    am_class_token_apply(a, a->x_dot[0], a->param_dot[0], a->y_dot);
}

static void am_class_token_curve(const am_layer_args *a)
{
    const am_layer_args dots = AM_R(am_layer_dots)(a);
    am_class_token_backward(&dots);
}

const am_layer AM_R(am_layer_class_token) = {
    .name = "class_token",
    .summary = "a learned position before the others",
    .inputs = 1,
    .axes = {.rule = AM_AXES_SAME, .param = {{AM_AXIS_OUT}}},
    .shape = am_class_token_shape,
    .params = am_class_token_params,
    .forward = am_class_token_forward,
    .backward = am_class_token_backward,
    .tangent = am_class_token_tangent,
    .curve = am_class_token_curve,
};
