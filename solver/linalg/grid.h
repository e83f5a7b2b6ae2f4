/* Process grids: matrices spread over the ranks of a communicator, worked on by ScaLAPACK.
 *
 * The operations of matrix.h, svd.h, polar.h, cholesky.h, least_squares.h, eigen.h and qr.h are
 * called as for whole matrices; they come here. So a method is written once. Every rank of the grid
 * makes the same calls: what they depend on (singular values, ranks, lengths, codes) has the same
 * bits on all of them, and the same for one layout, whatever ranks there are besides.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_GRID_H
#define AM_SOLVER_LINALG_GRID_H

#include <mpi.h>
#include "solver/linalg/matrix.h"

/* Each is called by all ranks of the grid, and its code is agreed. */
typedef struct am_grid_ops {
    /* b = alpha op(a) + beta b, whatever blocks the views begin in. */
    void (*add)(double alpha, am_matrix a, am_turn turn, double beta, am_matrix b);
    void (*multiply)(double alpha, am_matrix a, am_turn turn_a, am_matrix b, am_turn turn_b,
                     double beta, am_matrix c);
    /* Of one number of each rank: in the order of ranks, so that the same comes out everywhere. */
    double (*total)(const am_grid *grid, double x);
    double (*largest)(const am_grid *grid, double x);
    int (*agree)(const am_grid *grid, int code);
    /* As in the headers named above; matrices begin at (0, 0), but for u and vt. */
    int (*svd)(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt);
    int (*eigen)(am_arena *work, am_matrix a, double *values);
    int (*qr)(am_arena *work, am_matrix a, am_matrix q, am_matrix r);
    void (*qr_rows)(am_arena *work, am_matrix a); /* cannot fail */
    int (*cholesky)(am_matrix a);
    int (*cholesky_invert)(am_matrix l);
    int (*cholesky_solve)(am_matrix l, am_matrix b);
} am_grid_ops;

struct am_grid {
    am_layout layout;
    MPI_Comm comm; /* of its ranks, owned; MPI_COMM_NULL on others */
    int context;   /* of BLACS */
    int rank, row, col;
    const am_grid_ops *ops;
};

/** Put a grid on the first layout->rows * layout->cols ranks; the others have none of it and call
 * nothing but am_grid_close_all.
 *
 * Collective [comm]; layout [same]. Fewer ranks are a bug (callers refuse them, naming their key).
 * grid must not be moved: matrices point to it. */
int am_grid_open_all(MPI_Comm comm, const am_layout *layout, am_grid *grid);
/** Collective [its ranks]. A zeroed grid is fine. */
void am_grid_close_all(am_grid *grid);
/** Whether this rank is one of the grid's. */
bool am_grid_is_mine(const am_grid *grid);

/** Bytes that am_svd, am_symmetric_eigen, am_qr and am_qr_rows take of `work` on a grid. */
int64_t am_grid_svd_bytes(const am_layout *on, int64_t m, int64_t n, int64_t count);
int64_t am_grid_eigen_bytes(const am_layout *on, int64_t n);
int64_t am_grid_qr_bytes(const am_layout *on, int64_t m, int64_t n);
int64_t am_grid_qr_rows_bytes(const am_layout *on, int64_t n, int64_t m);
/** Bytes that PBLAS and BLACS take besides, for matrices with sides of at most `longest`. */
int64_t am_grid_besides(const am_layout *on, int64_t longest);

#endif
