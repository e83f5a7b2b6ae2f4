/* Hyperbolic tangent with bias, in place: y = tanh(y + b). SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_layer.h"

#include <math.h>

#if AM_REAL == 32
#define real_tanh tanhf
#else
#define real_tanh tanh
#endif

static void am_tanh_forward(const am_layer_args *a)
{
    for (int64_t b = 0; b < a->B; b++) {
        real *y = a->y + b * a->K;
        for (int64_t k = 0; k < a->K; k++) {
            y[k] = real_tanh(y[k] + a->param[k]);
        }
    }
}

/* dy[b,k] := dy[b,k] (1 - y[b,k]^2);  db[k] = sum over b of dy[b,k] */
static void am_tanh_backward(const am_layer_args *a)
{
    const real *restrict y = a->y;
    real *restrict dy = a->dy;
    for (int64_t i = 0; i < a->B * a->K; i++) {
        dy[i] *= (1 - y[i]) * (1 + y[i]);
    }
    AM_R(am_layer_bias_gradient)(a);
}

const am_layer AM_R(am_layer_tanh) = {
    .name = "tanh",
    .summary = "tanh(y + bias)",
    .forward = am_tanh_forward,
    .backward = am_tanh_backward,
};
