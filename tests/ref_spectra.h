/* Singular values that factorisations are tried on: plain, repeated, singular, badly scaled.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_TESTS_REF_SPECTRA_H
#define AM_TESTS_REF_SPECTRA_H

#include <math.h>
#include <stdint.h>

/* Spectra of k values, falling. */
enum { PLAIN, REPEATED, SINGULAR, ONE_DIRECTION, ZERO, HUGE, TINY, STEEP, SPREAD, SPECTRA };

static inline double spectrum(int kind, int64_t i, int64_t k)
{
    const double at = k > 1 ? (double)i / (double)(k - 1) : 0;
    switch (kind) {
    case PLAIN:
        return 3 - 2 * at;
    case REPEATED:
        return i < k / 2 ? 2 : 1;
    case SINGULAR:
        return i < (k + 1) / 2 ? 2 - at : 0;
    case ONE_DIRECTION:
        return i == 0;
    case ZERO:
        return 0;
    case HUGE:
        return 1e290 * (2 - at);
    case TINY:
        return 1e-290 * (2 - at);
    case STEEP:
        return pow(10, -4 * at);
    default:
        return pow(10, -9 * at);
    }
}

#endif
