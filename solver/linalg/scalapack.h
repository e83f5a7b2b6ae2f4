/* What the files of the grid share of ScaLAPACK. Fortran sees our rows as its columns: a matrix is
 * its transpose there, so nothing is transposed. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_SCALAPACK_H
#define AM_SOLVER_LINALG_SCALAPACK_H

#include "solver/linalg/grid.h"

/* A view as its routines take it: descriptor, first row, first column. */
typedef struct am_described {
    int at[9], i, j;
} am_described;

am_described am_describe(am_matrix a);

/** A workspace of ours for what a routine asks for. It rounds its answer through floating point and
 * asks for too little at times: 1 % and 1 more. AM_ASSERT: it fits. */
int am_grid_room(double answer, int64_t room);
/** Bytes of so many elements of workspace. */
int64_t am_grid_room_bytes(int64_t elements);

/** After every routine that factorises: some of them return early on the ranks that have no part in
 * small matrices, and leave their choice of how messages are sent there; the next product would
 * wait for messages that are sent otherwise. Local. */
void am_grid_settle(const am_grid *grid);

int am_grid_svd_all(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt);
int am_grid_eigen_all(am_arena *work, am_matrix a, double *values);
int am_grid_qr_all(am_arena *work, am_matrix a, am_matrix q, am_matrix r);
void am_grid_qr_rows_all(am_arena *work, am_matrix a);
int am_grid_cholesky_all(am_matrix a);
int am_grid_cholesky_invert_all(am_matrix l);
int am_grid_cholesky_solve_all(am_matrix l, am_matrix b);
/** Turn rows of v as am_fix_signs does, and with them columns of u, u.at NULL: nothing else. */
int am_grid_fix_signs_all(am_arena *work, am_matrix v, am_matrix u);
int64_t am_grid_fix_signs_bytes(int64_t rows);

#endif
