/* What layers share. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_layer.h"

#include <stddef.h>

/* Columns summed at a time: their f64 sums stay in the L1 cache. */
enum { AM_LAYER_COLUMNS = 512 };

/* sum[k] += d[b,k] over four rows at a time; rows lie `stride` apart. */
AM_CLONES static void am_layer_column_sums(int64_t B, int64_t stride, int64_t n,
                                           const real *restrict d, double *restrict sum)
{
    int64_t b = 0;
    for (; b + 4 <= B; b += 4) {
        const real *d0 = d + b * stride, *d1 = d0 + stride, *d2 = d1 + stride, *d3 = d2 + stride;
        for (int64_t k = 0; k < n; k++) {
            sum[k] += ((double)d0[k] + (double)d1[k]) + ((double)d2[k] + (double)d3[k]);
        }
    }
    for (; b < B; b++) {
        for (int64_t k = 0; k < n; k++) {
            sum[k] += (double)d[b * stride + k];
        }
    }
}

void AM_R(am_layer_column_sum)(int64_t rows, int64_t K, const real *d, real *out)
{
    for (int64_t lo = 0; out != NULL && lo < K; lo += AM_LAYER_COLUMNS) {
        const int64_t n = K - lo < AM_LAYER_COLUMNS ? K - lo : AM_LAYER_COLUMNS;
        double sum[AM_LAYER_COLUMNS] = {0};
        am_layer_column_sums(rows, K, n, d + lo, sum);
        for (int64_t k = 0; k < n; k++) {
            out[lo + k] = (real)sum[k];
        }
    }
}

am_layer_args AM_R(am_layer_dots)(const am_layer_args *a)
{
    am_layer_args dots = *a;
    dots.dy = a->dy_dot;
    for (int i = 0; i < AM_LAYER_INPUTS; i++) {
        dots.dx[i] = a->dx_dot[i];
    }
    for (int k = 0; k < AM_LAYER_PARAMS; k++) {
        dots.dparam[k] = a->dparam_dot[k];
    }
    return dots;
}

AM_CLONES void AM_R(am_layer_sum)(int64_t n, const real *x, real *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] += x[i];
    }
}
