/* Sums over a row in f64 by fixed lanes: vectorised, and the same bits in every clone.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_LANES_H
#define AM_SOLVER_TRAINING_REAL_LANES_H

#include "solver/training/real.h"

enum { AM_LANES = 16 };

static inline double am_lanes_total(const double lane[AM_LANES])
{
    double sum[AM_LANES / 2];
    for (int j = 0; j < 8; j++) {
        sum[j] = lane[j] + lane[j + 8];
    }
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/* sum of (x[i] - shift) */
static inline double am_lanes_sum(const real *x, double shift, int64_t n)
{
    double lane[AM_LANES] = {0};
    int64_t i = 0;
    for (; i + AM_LANES <= n; i += AM_LANES) {
        for (int j = 0; j < AM_LANES; j++) {
            lane[j] += (double)x[i + j] - shift;
        }
    }
    for (int j = 0; i + j < n; j++) {
        lane[j] += (double)x[i + j] - shift;
    }
    return am_lanes_total(lane);
}

/* sum of (x[i] - shift) (y[i] - shift) */
static inline double am_lanes_dot(const real *x, const real *y, double shift, int64_t n)
{
    double lane[AM_LANES] = {0};
    int64_t i = 0;
    for (; i + AM_LANES <= n; i += AM_LANES) {
        for (int j = 0; j < AM_LANES; j++) {
            lane[j] += ((double)x[i + j] - shift) * ((double)y[i + j] - shift);
        }
    }
    for (int j = 0; i + j < n; j++) {
        lane[j] += ((double)x[i + j] - shift) * ((double)y[i + j] - shift);
    }
    return am_lanes_total(lane);
}

#endif
