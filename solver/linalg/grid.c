/* Process grids: BLACS, numbers of all ranks, sums and products. See grid.h.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/grid.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"
#include "solver/linalg/scalapack.h"

extern int Csys2blacs_handle(MPI_Comm comm);
extern void Cfree_blacs_system_handle(int handle);
extern void Cblacs_gridinit(int *context, char *order, int rows, int cols);
extern void Cblacs_gridexit(int context);
extern void Cblacs_set(int context, int what, int *value);

extern void pb_topset_(const int *context, const char *what, const char *scope,
                       const char *topology, size_t length_w, size_t length_s, size_t length_t);
extern void pdgeadd_(const char *turn, const int *m, const int *n, const double *alpha,
                     const double *a, const int *ia, const int *ja, const int *desca,
                     const double *beta, double *c, const int *ic, const int *jc, const int *descc);
extern void pdgemm_(const char *turn_a, const char *turn_b, const int *m, const int *n,
                    const int *k, const double *alpha, const double *a, const int *ia,
                    const int *ja, const int *desca, const double *b, const int *ib, const int *jb,
                    const int *descb, const double *beta, double *c, const int *ic, const int *jc,
                    const int *descc);

/* Of Cblacs_set: sums come out the same on all ranks, and every time. */
enum { BLACS_REPEATABLE = 15, BLACS_COHERENT = 16 };

static int most(int a, int b)
{
    return a > b ? a : b;
}

/* ---- ScaLAPACK's view ---- */

am_described am_describe(am_matrix a)
{
    const int block = am_int(a.grid->layout.block);
    return (am_described){.at = {1, a.grid->context, most(1, am_int(a.col + a.cols)),
                                 most(1, am_int(a.row + a.rows)), block, block, 0, 0,
                                 most(1, am_int(a.step))},
                          .i = am_int(a.col) + 1,
                          .j = am_int(a.row) + 1};
}

void am_grid_settle(const am_grid *grid)
{
    static const char *const what[] = {"Broadcast", "Combine"};
    static const char *const scope[] = {"Rowwise", "Columnwise", "All"};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 3; j++) {
            pb_topset_(&grid->context, what[i], scope[j], " ", 9, 10, 1);
        }
    }
}

int am_grid_room(double answer, int64_t room)
{
    AM_ASSERT(answer * 1.01 + 1 <= (double)room);
    return am_int(room);
}

int64_t am_grid_room_bytes(int64_t elements)
{
    return (int64_t)am_arena_need((size_t)elements * sizeof(double));
}

int64_t am_grid_besides(const am_layout *on, int64_t longest)
{
    const int64_t libraries = 4 << 20; /* BLACS, and what MPI holds for its messages */
    const int64_t side = am_layout_most(on, longest, on->rows < on->cols ? on->rows : on->cols);
    return libraries + 8 * side * on->block * (int64_t)sizeof(double) + am_blas_bytes(side);
}

/* ---- operations ---- */

static void add_all(double alpha, am_matrix a, am_turn turn, double beta, am_matrix b)
{
    const am_described from = am_describe(a), to = am_describe(b);
    const int m = am_int(b.cols), n = am_int(b.rows);
    if (m == 0 || n == 0) {
        return;
    }
    am_alive("sums of matrices");
    pdgeadd_(turn == AM_AS_IS ? "N" : "T", &m, &n, &alpha, a.at, &from.i, &from.j, from.at, &beta,
             b.at, &to.i, &to.j, to.at);
}

static void multiply_all(double alpha, am_matrix a, am_turn turn_a, am_matrix b, am_turn turn_b,
                         double beta, am_matrix c)
{
    const am_described left = am_describe(b), right = am_describe(a), to = am_describe(c);
    const int m = am_int(c.cols), n = am_int(c.rows);
    const int k = am_int(turn_a == AM_AS_IS ? a.cols : a.rows);
    am_blas_single_thread();
    am_alive("products of matrices");
    pdgemm_(turn_b == AM_AS_IS ? "N" : "T", turn_a == AM_AS_IS ? "N" : "T", &m, &n, &k, &alpha,
            b.at, &left.i, &left.j, left.at, a.at, &right.i, &right.j, right.at, &beta, c.at, &to.i,
            &to.j, to.at);
}

/* In the order of ranks, AT_ONCE numbers at a time: no memory is taken, so nothing can fail. */
static double total_all(const am_grid *grid, double x)
{
    enum { AT_ONCE = 64 };
    const int ranks = grid->layout.rows * grid->layout.cols;
    double sum = 0;
    for (int first = 0; first < ranks; first += AT_ONCE) {
        double part[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            part[i] = -INFINITY;
        }
        if (grid->rank >= first && grid->rank < first + AT_ONCE) {
            part[grid->rank - first] = x;
        }
        (void)am_max_f64_all(grid->comm, part, AT_ONCE);
        for (int i = 0; i < AT_ONCE && first + i < ranks; i++) {
            sum += part[i];
        }
    }
    return sum;
}

static double largest_all(const am_grid *grid, double x)
{
    (void)am_max_f64_all(grid->comm, &x, 1); /* cannot fail: no memory is taken */
    return x;
}

static int agree_on_all(const am_grid *grid, int code)
{
    return am_agree_all(grid->comm, code);
}

/* ---- open and close ---- */

static const am_grid_ops scalapack = {.add = add_all,
                                      .multiply = multiply_all,
                                      .total = total_all,
                                      .largest = largest_all,
                                      .agree = agree_on_all,
                                      .svd = am_grid_svd_all,
                                      .eigen = am_grid_eigen_all,
                                      .qr = am_grid_qr_all,
                                      .qr_rows = am_grid_qr_rows_all,
                                      .cholesky = am_grid_cholesky_all,
                                      .cholesky_invert = am_grid_cholesky_invert_all,
                                      .cholesky_solve = am_grid_cholesky_solve_all};

/* Fortran's rows are our columns: its grid has layout->cols rows, and is filled column by column.
 */
int am_grid_open_all(MPI_Comm comm, const am_layout *layout, am_grid *grid)
{
    const int ranks = layout->rows * layout->cols;
    int rank = 0, size = 1, yes = 1, rc = 0;
    char order[] = "Col";
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    AM_ASSERT(layout->rows > 0 && layout->cols > 0 && layout->block > 0 && ranks <= size);
    *grid = (am_grid){.layout = *layout, .comm = MPI_COMM_NULL, .rank = rank, .ops = &scalapack};
    rc = am_mpi_code(MPI_Comm_split(comm, rank < ranks ? 0 : MPI_UNDEFINED, rank, &grid->comm),
                     "MPI_Comm_split");
    if (rc != 0 || grid->comm == MPI_COMM_NULL) {
        return rc;
    }
    grid->row = rank / layout->cols;
    grid->col = rank % layout->cols;
    const int handle = Csys2blacs_handle(grid->comm);
    grid->context = handle;
    Cblacs_gridinit(&grid->context, order, layout->cols, layout->rows);
    Cfree_blacs_system_handle(handle); /* the grid has a communicator of its own */
    Cblacs_set(grid->context, BLACS_REPEATABLE, &yes);
    Cblacs_set(grid->context, BLACS_COHERENT, &yes);
    return 0;
}

void am_grid_close_all(am_grid *grid)
{
    if (am_grid_is_mine(grid)) {
        Cblacs_gridexit(grid->context);
        AM_ASSERT(MPI_Comm_free(&grid->comm) == MPI_SUCCESS);
    }
    *grid = (am_grid){0};
}

bool am_grid_is_mine(const am_grid *grid)
{
    return grid->ops != NULL && grid->comm != MPI_COMM_NULL;
}
