/* Residual connection: y = x0 + x1. Backward is done by the program, which hands the gradient on
 * without computing anything. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

static int am_add_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    bool is_same = s->in[0].n == s->in[1].n;
    for (int i = 0; is_same && i < out->n; i++) {
        is_same = s->in[0].d[i] == s->in[1].d[i];
    }
    return is_same ? 0
                   : am_layer_fail(s, "cannot add %s and %s", am_shape_text(&s->in[0]),
                                   am_shape_text(&s->in[1]));
}

AM_CLONES static void am_add_arrays(int64_t n, const real *a, const real *b, real *restrict y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = a[i] + b[i];
    }
}

static void am_add_forward(const am_layer_args *a)
{
    am_add_arrays(a->B * am_shape_numel(&a->site->out), a->x[0], a->x[1], a->y);
}

static void am_add_tangent(const am_layer_args *a)
{
    const int64_t n = a->B * am_shape_numel(&a->site->out);
    memset(a->y_dot, 0, (size_t)n * sizeof(real));
    for (int k = 0; k < 2; k++) {
        if (a->x_dot[k] != NULL) {
            AM_R(am_layer_sum)(n, a->x_dot[k], a->y_dot);
        }
    }
}

const am_layer AM_R(am_layer_add) = {
    .name = "add",
    .summary = "sum of two values of one shape",
    .inputs = 2,
    .is_sum = true,
    .axes = {.rule = AM_AXES_SAME},
    .shape = am_add_shape,
    .forward = am_add_forward,
    .tangent = am_add_tangent,
};
