/* Eigenvalues of small symmetric matrices (LAPACK). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_SYMMETRIC_H
#define AM_SOLVER_LINALG_SYMMETRIC_H

#include <stdint.h>

/** All eigenvalues and eigenvectors of a symmetric matrix.
 *
 * matrix  [n,n]  in: the matrix; out: row i is the eigenvector of the i-th value, of length 1
 * value   [n]    out: eigenvalues, ascending
 * Local. 1 <= n. Memory: some dozens of n reals. Errors: AM_E_NUMERIC (an element is not finite, or
 * no convergence), AM_E_NOMEM. */
int am_symmetric_eigen(int64_t n, double *matrix, double *value);

#endif
