/* Fully connected layer without bias: y = x W^T. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_layer.h"

#include <stddef.h>

/* y [B,K] = x [B,C] W^T, W [K,C] */
static void am_linear_forward(const am_layer_args *a)
{
    AM_R(am_gemm)(false, true, a->B, a->K, a->C, a->x, a->param, a->y);
}

/* dW [K,C] = dy^T x;  dx [B,C] = dy W */
static void am_linear_backward(const am_layer_args *a)
{
    if (a->dparam != NULL) {
        AM_R(am_gemm)(true, false, a->K, a->C, a->B, a->dy, a->x, a->dparam);
    }
    if (a->dx != NULL) {
        AM_R(am_gemm)(false, false, a->B, a->C, a->K, a->dy, a->param, a->dx);
    }
}

const am_layer AM_R(am_layer_linear) = {
    .name = "linear",
    .summary = "fully connected, y = x W^T; the bias belongs to the layer behind it",
    .forward = am_linear_forward,
    .backward = am_linear_backward,
};
