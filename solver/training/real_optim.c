/* What optimisers share. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_optim.h"

#include <stddef.h>

const char *AM_R(am_optim_name)(int index)
{
    int n = 0;
    while (AM_R(am_optim_table)[n] != NULL) {
        n++;
    }
    return index >= 0 && index < n ? AM_R(am_optim_table)[index]->name : NULL;
}

enum { AM_NORM_LANES = 16 };

AM_CLONES double AM_R(am_norm2)(const real *g, int64_t n)
{
    double lane[AM_NORM_LANES] = {0};
    const int64_t whole = n - n % AM_NORM_LANES;
    for (int64_t i = 0; i < whole; i += AM_NORM_LANES) {
        for (int j = 0; j < AM_NORM_LANES; j++) {
            lane[j] += (double)g[i + j] * (double)g[i + j];
        }
    }
    for (int64_t i = whole; i < n; i++) {
        lane[i - whole] += (double)g[i] * (double)g[i];
    }
    for (int half = AM_NORM_LANES / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; j++) {
            lane[j] += lane[j + half];
        }
    }
    return lane[0];
}

AM_CLONES void AM_R(am_optim_move)(double rate, int64_t n, real *restrict w, const real *restrict u)
{
    const real r = (real)rate;
    for (int64_t i = 0; i < n; i++) {
        w[i] -= r * u[i];
    }
}
