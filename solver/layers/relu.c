/* Rectifier with bias, in place: y = max(0, y + b). SPDX-License-Identifier: BSD-3-Clause */
#include "solver/real_layer.h"

#include <stddef.h>

/* The comparison lets NaN through, so that a bad input reaches the loss and is seen there. */
static void am_relu_forward(const am_layer_args *a)
{
    for (int64_t b = 0; b < a->B; b++) {
        real *y = a->y + b * a->K;
        for (int64_t k = 0; k < a->K; k++) {
            const real v = y[k] + a->param[k];
            y[k] = v < 0 ? 0 : v;
        }
    }
}

/* dy[b,k] := dy[b,k] [y[b,k] > 0];  db[k] = sum over b of dy[b,k] */
static void am_relu_backward(const am_layer_args *a)
{
    for (int64_t lo = 0; lo < a->K; lo += AM_LAYER_COLUMNS) {
        const int64_t n = a->K - lo < AM_LAYER_COLUMNS ? a->K - lo : AM_LAYER_COLUMNS;
        double sum[AM_LAYER_COLUMNS] = {0};
        for (int64_t b = 0; b < a->B; b++) {
            const real *y = a->y + b * a->K + lo;
            real *dy = a->dy + b * a->K + lo;
            for (int64_t k = 0; k < n; k++) {
                dy[k] = y[k] > 0 ? dy[k] : 0;
                sum[k] += (double)dy[k];
            }
        }
        for (int64_t k = 0; a->dparam != NULL && k < n; k++) {
            a->dparam[lo + k] = (real)sum[k];
        }
    }
}

const am_layer AM_R(am_layer_relu) = {
    .name = "relu",
    .summary = "max(0, y + bias)",
    .forward = am_relu_forward,
    .backward = am_relu_backward,
};
