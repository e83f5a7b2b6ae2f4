/* Dropout: in training every element is zero with probability `rate`, else divided by 1 - rate. The
 * mask is counter-based, keyed by seed, step and layer, counted by sample and element, so it is the
 * same for any number of ranks; backward makes it again. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

typedef struct am_dropout {
    double rate;
} am_dropout;

static const am_param attrs[] = {
    {"rate", AM_PARAM_REAL, offsetof(am_dropout, rate), "0.1", 0, 0.99, NULL,
     "probability of zero"},
    {0},
};

enum { AM_DROPOUT_RUN = 2048 }; /* elements whose random numbers are made at a time */

static int am_dropout_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    return 0;
}

AM_CLONES static void am_dropout_run(int64_t n, uint32_t limit, real scale, const uint32_t *random,
                                     const real *from, real *to)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = random[i] < limit ? 0 : scale * from[i];
    }
}

/* to := mask * from / (1 - rate); to may be from */
static void am_dropout_apply(const am_layer_args *a, const real *from, real *to)
{
    const double rate = ((const am_dropout *)a->site->attrs)->rate;
    const int64_t n = am_shape_numel(&a->site->out);
    const uint32_t limit = (uint32_t)(rate * 4294967296.0);
    uint32_t random[AM_DROPOUT_RUN];
    if (!a->is_training || limit == 0) {
        memmove(to, from, (size_t)(a->B * n) * sizeof(real));
        return;
    }
    for (int64_t b = 0; b < a->B; b++) {
        for (int64_t lo = 0; lo < n; lo += AM_DROPOUT_RUN) {
            const int64_t m = n - lo < AM_DROPOUT_RUN ? n - lo : AM_DROPOUT_RUN;
            am_rng_fill_u32(&a->rng, a->sample[b] * n + lo, m, random);
            am_dropout_run(m, limit, (real)(1 / (1 - rate)), random, from + b * n + lo,
                           to + b * n + lo);
        }
    }
}

static void am_dropout_forward(const am_layer_args *a)
{
    am_dropout_apply(a, a->x[0], a->y);
}

static void am_dropout_backward(const am_layer_args *a)
{
    am_dropout_apply(a, a->dy, a->dx[0]);
}

static void am_dropout_tangent(const am_layer_args *a)
{
    am_dropout_apply(a, a->x_dot[0], a->y_dot);
}

static void am_dropout_curve(const am_layer_args *a)
{
    const am_layer_args dots = AM_R(am_layer_dots)(a);
    am_dropout_backward(&dots);
}

const am_layer AM_R(am_layer_dropout) = {
    .name = "dropout",
    .summary = "zero elements at random in training",
    .attrs = attrs,
    .inputs = 1,
    .is_elementwise = true,
    .axes = {.rule = AM_AXES_SAME},
    .shape = am_dropout_shape,
    .forward = am_dropout_forward,
    .backward = am_dropout_backward,
    .tangent = am_dropout_tangent,
    .curve = am_dropout_curve,
};
