/* Rectifier with bias, in place: y = max(0, y + b). SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_layer.h"

/* The comparison lets NaN through, so that a bad input reaches the loss and is seen there. */
AM_CLONES static void am_relu_forward(const am_layer_args *a)
{
    for (int64_t b = 0; b < a->B; b++) {
        real *restrict y = a->y + b * a->K;
        const real *restrict bias = a->param;
        for (int64_t k = 0; k < a->K; k++) {
            const real v = y[k] + bias[k];
            y[k] = v < 0 ? 0 : v;
        }
    }
}

/* dy[b,k] := dy[b,k] [y[b,k] > 0];  db[k] = sum over b of dy[b,k] */
AM_CLONES static void am_relu_backward(const am_layer_args *a)
{
    const real *restrict y = a->y;
    real *restrict dy = a->dy;
    for (int64_t i = 0; i < a->B * a->K; i++) {
        dy[i] = y[i] > 0 ? dy[i] : 0;
    }
    AM_R(am_layer_bias_gradient)(a);
}

const am_layer AM_R(am_layer_relu) = {
    .name = "relu",
    .summary = "max(0, y + bias)",
    .forward = am_relu_forward,
    .backward = am_relu_backward,
};
