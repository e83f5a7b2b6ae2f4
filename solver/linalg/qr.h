/* QR factorisation (LAPACK). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_QR_H
#define AM_SOLVER_LINALG_QR_H

#include "solver/linalg/matrix.h"

/** The thin factorisation a = q r, or with `pivot` a P = q r, k = min(m, n).
 *
 * a      [m,n]  kept
 * q      [m,k]  orthonormal columns
 * r      [k,n]  upper triangle; its diagonal is >= 0, and with `pivot` it falls
 * pivot  [n] or NULL: column j of a P is column pivot[j] of a
 * Local, or collective over the grid of `a`; am_qr_bytes(m, n) of `work`, given back. Errors:
 * AM_E_NUMERIC (an element is not finite; too large). */
int am_qr(am_arena *work, am_matrix a, am_matrix q, am_matrix r, int *pivot);
int64_t am_qr_bytes(int64_t m, int64_t n);
/* On a grid (pdgeqrf), without pivot: am_grid_qr_bytes of `work`. */

/** Orthonormal rows that span what the rows of a do, in place: of a = r q, r a lower triangle of
 * any signs, q. a [n,m], n <= m: a matrix whose size was checked, beside a square. Local, or
 * collective over the grid of `a`; am_qr_rows_bytes_on of `work`, given back. Errors: those of
 * am_qr. */
int am_qr_rows(am_arena *work, am_matrix a);
int64_t am_qr_rows_bytes_on(const am_layout *on, int64_t n, int64_t m);

#endif
