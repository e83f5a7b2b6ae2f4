/* Reduction to two diagonals, the step of singular values that memory bounds. For svd.c.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_BIDIAGONAL_H
#define AM_SOLVER_LINALG_BIDIAGONAL_H

#include <stdint.h>

/** a = Q B P^T, B with the diagonals d and e, upper: what dgebrd computes, kept as it keeps it, so
 * that dormbr turns vectors back.
 *
 * a  m x n by columns, m >= n >= 1, finite, |a| about 1; replaced by reflectors
 * d, tauq [n]; e, taup [n - 1]
 * room  am_bidiagonal_room(m, n) elements
 * dgebrd reads what is left of the matrix twice a column, this once: see bidiagonal.c. Local. One
 * BLAS thread. */
void am_bidiagonal_reduce(int m, int n, double *a, int lda, double *d, double *e, double *tauq,
                          double *taup, double *room);
int64_t am_bidiagonal_room(int64_t m, int64_t n);

#endif
