/* Norms and angles of whole vectors that every rank holds: the same bits on each.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_VECTORS_H
#define AM_SOLVER_THEORY_VECTORS_H

#include <stdint.h>

/** Sum of x[i] y[i] over chunks that are added without error. Pure. */
double am_theory_dot(int64_t n, const double *x, const double *y);
double am_theory_norm(int64_t n, const double *x);
/** Cosine; NaN with a zero vector. Pure. */
double am_theory_cosine(int64_t n, const double *x, const double *y);
/** Largest |x - y| in units in the last place of the largest of |x|, |y| and |factor scale| (of
 * what was added up to make them), element by element. Pure. */
double am_theory_ulps(int64_t n, const double *x, const double *y, double factor,
                      const double *scale);

#endif
