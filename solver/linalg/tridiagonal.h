/* Eigenvalues of small symmetric matrices (LAPACK). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_TRIDIAGONAL_H
#define AM_SOLVER_LINALG_TRIDIAGONAL_H

#include <stdint.h>

/** All eigenvalues and eigenvectors of a symmetric tridiagonal matrix.
 *
 * diagonal [n]    in: the diagonal; out: eigenvalues, ascending
 * beside   [n-1]  the elements beside it; destroyed
 * vectors  [n,n]  out: row i is the eigenvector of the i-th value, of length 1
 * work     [2 n]
 * Local. 1 <= n. Errors: AM_E_NUMERIC (an element is not finite, or no convergence). */
int am_tridiagonal_eigen(int64_t n, double *diagonal, double *beside, double *vectors,
                         double *work);

#endif
