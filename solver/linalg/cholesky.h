/* Positive definite systems (LAPACK). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_CHOLESKY_H
#define AM_SOLVER_LINALG_CHOLESKY_H

#include "solver/linalg/matrix.h"

/** a = l l^T (dpotrf). a [n,n]: its lower triangle is read and becomes l, the rest 0. Local, or
 * collective over the grid of `a`, as the others.
 * Errors: AM_E_NUMERIC (an element is not finite; too large; not positive definite). */
int am_cholesky(am_matrix a);
/** l^-1 in place of l (dtrtri). Errors: AM_E_NUMERIC a zero on the diagonal. */
int am_cholesky_invert(am_matrix l);
/** x a = b, row by row: rows of b [r,n] become solutions. l as am_cholesky made it of a.
 * Errors: AM_E_NUMERIC (an element is not finite; too large). */
int am_cholesky_solve(am_matrix l, am_matrix b);

#endif
