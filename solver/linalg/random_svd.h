/* The leading singular values and vectors of a matrix, by a randomised range finder.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_RANDOM_SVD_H
#define AM_SOLVER_LINALG_RANDOM_SVD_H

#include "mpi/rng.h"
#include "solver/linalg/matrix.h"

/** a ~ u diag(s) vt with r singular values (Halko, Martinsson, Tropp 2011: algorithms 4.4, 5.1).
 *
 * a      [m,n]  kept
 * r      <= min(m, n)
 * power  subspace iterations, with a QR factorisation after each product; 2 is usual
 * rng    random numbers by index: the same matrix and rng give the same bits
 * u [m,r], s [r], vt [r,n]  as of am_svd
 * error  sqrt(|a|_F^2 - |s|^2) measured as |a - u diag(s) vt|_F: no estimate but what is left out;
 *        NULL: not measured
 * The range has r + 10 columns. Local; am_random_svd_bytes(m, n, r) of `work`, given back. Errors:
 * as of am_svd. */
int am_random_svd(am_arena *work, am_matrix a, int64_t r, int power, const am_rng *rng, am_matrix u,
                  double *s, am_matrix vt, double *error);
int64_t am_random_svd_bytes(int64_t m, int64_t n, int64_t r);

#endif
