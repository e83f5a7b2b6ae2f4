/* Eigenvalues and eigenvectors of symmetric matrices (LAPACK). SPDX-License-Identifier:
 * BSD-3-Clause
 */
#ifndef AM_SOLVER_LINALG_EIGEN_H
#define AM_SOLVER_LINALG_EIGEN_H

#include "solver/linalg/matrix.h"

/** All eigenvalues and eigenvectors of a symmetric matrix, by divide and conquer (dsyevd).
 *
 * a       [n,n]  in: its lower triangle is read; out: row i is the eigenvector of the i-th value,
 *         of length 1, its element of largest magnitude positive
 * values  [n]    rising
 * Local, or collective over the grid of `a`; am_symmetric_eigen_bytes(n) of `work`, given back.
 * Errors: AM_E_NUMERIC (an element is not finite; too large; no convergence). */
int am_symmetric_eigen(am_arena *work, am_matrix a, double *values);
int64_t am_symmetric_eigen_bytes(int64_t n);
/* On a grid (pdsyevd): am_grid_eigen_bytes of `work`. */

#endif
