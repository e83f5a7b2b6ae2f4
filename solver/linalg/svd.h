/* Singular values and vectors (LAPACK). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_SVD_H
#define AM_SOLVER_LINALG_SVD_H

#include "solver/linalg/matrix.h"

/** The thin singular value decomposition a = u diag(s) vt, k = min(m, n): all singular values, and
 * the leading `count` <= k vectors; fewer take less time.
 *
 * a   [m,n]      destroyed
 * u   [m,count]  orthonormal columns
 * s   [k]        falling, >= 0
 * vt  [count,n]  orthonormal rows; the element of largest magnitude of each is positive
 * Divide and conquer; where that does not converge, QR iteration.
 * Local, or collective over the grid of `a`; am_svd_bytes_on(layout, m, n, count) of `work`, given
 * back. 0 <= m, n, count.
 * Errors: AM_E_NUMERIC (an element is not finite; too large; no convergence; the largest value is
 * more than f64 holds). */
int am_svd(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt);
/** For all vectors of a whole matrix; and of it or any of its leading rows or columns, some of
 * which need more, because they are reduced otherwise. */
int64_t am_svd_bytes(int64_t m, int64_t n);
int64_t am_svd_bytes_within(int64_t m, int64_t n);
/** On a grid (by the polar decomposition; |u^T a - diag(s) vt| is checked); on NULL: whole. */
int64_t am_svd_bytes_on(const am_layout *on, int64_t m, int64_t n, int64_t count);

/** How many of s [k] are more than rounding of the largest: s > max(m, n) epsilon s[0]. The
 * directions of the others are arbitrary. Pure. */
int64_t am_svd_rank(int64_t m, int64_t n, const double *s);

#endif
