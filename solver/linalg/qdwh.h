/* The polar factor by a rational iteration (QDWH). For the files of solver/linalg alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_QDWH_H
#define AM_SOLVER_LINALG_QDWH_H

#include "solver/linalg/matrix.h"

/** a = the polar factor of a: p q^T of its singular value decomposition p diag(s) q^T. Its columns
 * become orthonormal, or its rows where there are fewer, also of a matrix without full rank and of
 * zero: directions without a factor get one, as rounding and fixed noise of its size decide.
 *
 * a  [m,n], whole or on a grid, finite
 * What the iteration makes is the factor of a matrix that differs from a by rounding of |a|_2, for
 * any condition (Nakatsukasa, Bai and Gygi 2010; Nakatsukasa and Higham 2012), by products,
 * Cholesky and QR factorisations alone. Local, or collective over the grid of `a`;
 * am_qdwh_bytes_on(layout, m, n) of `work`, given back. Errors: AM_E_NUMERIC (not orthonormal to
 * 1e-13 sqrt(k) after 20 steps). */
int am_qdwh(am_arena *work, am_matrix a);
/** on: its layout; NULL: whole. */
int64_t am_qdwh_bytes_on(const am_layout *on, int64_t m, int64_t n);

#endif
