/* Linear least squares (LAPACK). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_LEAST_SQUARES_H
#define AM_SOLVER_LINALG_LEAST_SQUARES_H

#include "solver/linalg/matrix.h"

/** For each row of b the shortest x that makes |x a - b| least, by the singular values of a
 * (dgelsd); those that are at most `smallest` times the largest count as 0. `smallest` < 0:
 * rounding, epsilon.
 *
 * a     [n,m]  destroyed: rows are what is combined
 * b     [r,w]  w >= max(n, m): in, the first m of a row: a right-hand side; out, the first n: x
 * rank  how many singular values counted
 * Local, or collective over the grid of `a`; am_least_squares_bytes(n, m, r) of `work`, given back.
 * Errors: AM_E_NUMERIC (an element is not finite; too large; no convergence). */
int am_least_squares(am_arena *work, am_matrix a, am_matrix b, double smallest, int64_t *rank);
int64_t am_least_squares_bytes(int64_t n, int64_t m, int64_t r);
/** The same on a grid (by am_svd); on NULL: whole. */
int64_t am_least_squares_bytes_on(const am_layout *on, int64_t n, int64_t m, int64_t r);

#endif
