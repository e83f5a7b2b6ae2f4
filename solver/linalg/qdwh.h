/* The polar factor by a rational iteration (QDWH). For the files of solver/linalg alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_QDWH_H
#define AM_SOLVER_LINALG_QDWH_H

#include "solver/linalg/matrix.h"

/** x = the polar factor of x: p q^T of its singular value decomposition p diag(s) q^T; its rows
 * become orthonormal.
 *
 * x    [n,m], n <= m, whole or on a grid; |x|_2 <= 1
 * low  no singular value is smaller; 0: not known, and then rows that depend on others, and zero,
 *      get some orthonormal ones, too: rounding decides which
 * What the iteration makes is the factor of a matrix that differs from x by rounding of |x|_2, for
 * any condition (Nakatsukasa, Bai and Gygi 2010; Nakatsukasa and Higham 2012), by products,
 * Cholesky and QR factorisations alone. Local, or collective over the grid of x; am_qdwh_bytes_on
 * of `work`, given back. Errors: AM_E_NUMERIC (not orthonormal to 1e-13 sqrt(n) after 20 steps). */
int am_qdwh(am_arena *work, am_matrix x, double low);
int64_t am_qdwh_bytes_on(const am_layout *on, int64_t n, int64_t m);

#endif
