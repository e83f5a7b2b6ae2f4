/* The polar factor of a matrix: the nearest one with orthonormal columns (or rows).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_POLAR_H
#define AM_SOLVER_LINALG_POLAR_H

#include "solver/linalg/matrix.h"

typedef enum am_polar_way { AM_POLAR_AUTO, AM_POLAR_SVD, AM_POLAR_ITERATE } am_polar_way;

/** a = p q^T of its singular value decomposition p diag(s) q^T. Directions whose singular value is
 * rounding (am_svd_rank), or at most `smallest` times the largest, have no factor and are left out:
 * a matrix without full rank gets a partial isometry, and zero stays zero.
 *
 * a    [m,n]  replaced
 * smallest  0, or how well the columns are known; at most 1e-6, where no iteration is tried
 * way  AUTO: Newton-Schulz iterations of the scaled matrix, products alone, if a bound of its
 *      condition says that few will do; if they do not reach |I - a^T a| <= 1e-13 sqrt(k), or are
 *      too many: on a grid QDWH (qdwh.h), if the bound says that all directions count; else the
 *      decomposition. What is done follows from the matrix, never from a clock.
 *      ITERATE: AM_E_NUMERIC where the iteration does not get there, and `a` is undefined.
 * Local, or collective over the grid of `a`; am_polar_bytes(m, n) of `work`, given back. Errors:
 * AM_E_NUMERIC (an element is not finite; too large; no convergence). */
int am_polar(am_arena *work, am_matrix a, double smallest, am_polar_way way);
int64_t am_polar_bytes(int64_t m, int64_t n);
/** The same on a grid; on NULL: whole. */
int64_t am_polar_bytes_on(const am_layout *on, int64_t m, int64_t n);
/** Of a matrix of m x n or any of its leading rows or columns. */
int64_t am_polar_bytes_within_on(const am_layout *on, int64_t m, int64_t n);

#endif
