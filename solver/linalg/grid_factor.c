/* Cholesky, QR and symmetric eigenvalues on a grid. Our lower triangle is Fortran's upper one.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/scalapack.h"

#include <math.h>
#include <stddef.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "solver/linalg/checked.h"

extern void pdpotrf_(const char *triangle, const int *n, double *a, const int *ia, const int *ja,
                     const int *desca, int *info, size_t length);
extern void pdtrtri_(const char *triangle, const char *diagonal, const int *n, double *a,
                     const int *ia, const int *ja, const int *desca, int *info, size_t length_t,
                     size_t length_d);
extern void pdpotrs_(const char *triangle, const int *n, const int *nrhs, const double *a,
                     const int *ia, const int *ja, const int *desca, double *b, const int *ib,
                     const int *jb, const int *descb, int *info, size_t length);
extern void pdgeqrf_(const int *m, const int *n, double *a, const int *ia, const int *ja,
                     const int *desca, double *tau, double *work, const int *lwork, int *info);
extern void pdorgqr_(const int *m, const int *n, const int *k, double *a, const int *ia,
                     const int *ja, const int *desca, const double *tau, double *work,
                     const int *lwork, int *info);
extern void pdsyevd_(const char *job, const char *triangle, const int *n, double *a, const int *ia,
                     const int *ja, const int *desca, double *w, double *z, const int *iz,
                     const int *jz, const int *descz, double *work, const int *lwork, int *iwork,
                     const int *liwork, int *info, size_t length_j, size_t length_t);

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- Cholesky ---- */

/* Elements right of the diagonal become 0. */
static void clear_upper(am_matrix a)
{
    const am_matrix here = am_matrix_local(a);
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(a, i);
        for (int64_t j = 0; j < here.cols; j++) {
            double *x = &here.at[i * here.step + j];
            *x = am_matrix_col(a, j) > row ? 0 : *x;
        }
    }
}

int am_grid_cholesky_all(am_matrix a)
{
    const am_described at = am_describe(a);
    const int n = am_int(a.rows);
    int info = 0;
    pdpotrf_("U", &n, a.at, &at.i, &at.j, at.at, &info, 1);
    am_grid_settle(a.grid);
    clear_upper(a);
    return am_agree_all(a.grid->comm, am_lapack_info("Cholesky factorisation", "pdpotrf", info,
                                                     "the matrix is not positive definite"));
}

int am_grid_cholesky_invert_all(am_matrix l)
{
    const am_described at = am_describe(l);
    const int n = am_int(l.rows);
    int info = 0;
    pdtrtri_("U", "N", &n, l.at, &at.i, &at.j, at.at, &info, 1, 1);
    am_grid_settle(l.grid);
    return am_agree_all(l.grid->comm, am_lapack_info("inverse of Cholesky factors", "pdtrtri", info,
                                                     "the matrix is singular"));
}

int am_grid_cholesky_solve_all(am_matrix l, am_matrix b)
{
    const am_described at = am_describe(l), right = am_describe(b);
    const int n = am_int(l.rows), nrhs = am_int(b.rows);
    int info = 0;
    pdpotrs_("U", &n, &nrhs, l.at, &at.i, &at.j, at.at, b.at, &right.i, &right.j, right.at, &info,
             1);
    am_grid_settle(l.grid);
    return am_agree_all(l.grid->comm, am_lapack_info("solution by Cholesky factors", "pdpotrs",
                                                     info, "no solution"));
}

/* ---- QR ---- */

static int64_t qr_room(const am_layout *on, int64_t m, int64_t n)
{
    const int64_t row = am_layout_most(on, m, on->cols), col = am_layout_most(on, n, on->rows);
    const int64_t asked = on->block * (row + col + 3 * on->block);
    return asked + asked / 50 + 64;
}

/* tau of a column lies where the column does. */
static int64_t tau_room(const am_layout *on, int64_t n)
{
    return am_layout_most(on, n, on->rows) + on->block;
}

int64_t am_grid_qr_bytes(const am_layout *on, int64_t m, int64_t n)
{
    const int64_t signs = 2 * (int64_t)am_arena_need((size_t)least(m, n) * sizeof(double));
    return am_matrix_bytes_on(on, n, m) + am_grid_room_bytes(tau_room(on, n)) +
           most(am_grid_room_bytes(qr_room(on, m, n)), signs);
}

int64_t am_grid_qr_rows_bytes(const am_layout *on, int64_t n, int64_t m)
{
    return am_grid_room_bytes(tau_room(on, n)) + am_grid_room_bytes(qr_room(on, m, n));
}

/* Fortran's columns, our rows, to their reflectors. */
static void reflect_all(am_arena *work, am_matrix columns, double *tau)
{
    const am_described at = am_describe(columns);
    const int m = am_int(columns.cols), n = am_int(columns.rows), query = -1;
    const int64_t room = qr_room(&columns.grid->layout, m, n);
    double answer = 0, *space = am_arena_take(work, (size_t)room * sizeof *space);
    int info = 0;
    pdgeqrf_(&m, &n, columns.at, &at.i, &at.j, at.at, tau, &answer, &query, &info);
    AM_ASSERT(info == 0);
    const int lwork = am_grid_room(answer, room);
    pdgeqrf_(&m, &n, columns.at, &at.i, &at.j, at.at, tau, space, &lwork, &info);
    am_grid_settle(columns.grid);
    AM_ASSERT(info == 0);
}

/* r: the triangle of the reflectors. */
static void unpack(am_matrix columns, am_matrix r)
{
    am_matrix_transpose(am_matrix_part(columns, 0, 0, columns.rows, r.rows), r);
    const am_matrix here = am_matrix_local(r);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            double *x = &here.at[i * here.step + j];
            *x = am_matrix_col(r, j) < am_matrix_row(r, i) ? 0 : *x;
        }
    }
}

/* The first k reflectors to k orthonormal columns. */
static void form_all(am_arena *work, am_matrix columns, const double *tau, int k)
{
    const am_described at = am_describe(columns);
    const int m = am_int(columns.cols), query = -1;
    const int64_t room = qr_room(&columns.grid->layout, columns.cols, columns.rows);
    double answer = 0, *space = am_arena_take(work, (size_t)room * sizeof *space);
    int info = 0;
    pdorgqr_(&m, &k, &k, columns.at, &at.i, &at.j, at.at, tau, &answer, &query, &info);
    AM_ASSERT(info == 0);
    const int lwork = am_grid_room(answer, room);
    pdorgqr_(&m, &k, &k, columns.at, &at.i, &at.j, at.at, tau, space, &lwork, &info);
    am_grid_settle(columns.grid);
    AM_ASSERT(info == 0);
}

void am_grid_qr_rows_all(am_arena *work, am_matrix a)
{
    double *tau = am_arena_take(work, (size_t)tau_room(&a.grid->layout, a.rows) * sizeof(double));
    const size_t after = am_arena_mark(work);
    reflect_all(work, a, tau);
    am_arena_release(work, after);
    form_all(work, a, tau, am_int(a.rows));
}

/* The diagonal of r becomes positive: its rows, and columns of q with them. */
static int turn_all(am_arena *work, am_matrix q, am_matrix r)
{
    int64_t *is_negative = am_arena_take(work, (size_t)r.rows * sizeof *is_negative);
    double *sign = am_arena_take(work, (size_t)r.rows * sizeof *sign);
    const am_matrix here = am_matrix_local(r), beside = am_matrix_local(q);
    for (int64_t i = 0; i < r.rows; i++) {
        is_negative[i] = 0;
    }
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(r, i);
        for (int64_t j = 0; j < here.cols; j++) {
            is_negative[row] |= am_matrix_col(r, j) == row && here.at[i * here.step + j] < 0;
        }
    }
    const int rc = am_max_i64_all(r.grid->comm, is_negative, r.rows);
    for (int64_t i = 0; i < r.rows; i++) {
        sign[i] = is_negative[i] != 0 ? -1 : 1;
    }
    am_matrix_scale_rows(r, sign);
    for (int64_t i = 0; i < beside.rows; i++) {
        for (int64_t j = 0; j < beside.cols; j++) {
            beside.at[i * beside.step + j] *= sign[am_matrix_col(q, j)];
        }
    }
    return rc;
}

int am_grid_qr_all(am_arena *work, am_matrix a, am_matrix q, am_matrix r)
{
    const size_t mark = am_arena_mark(work);
    const am_matrix columns = am_matrix_take_like(work, a, a.cols, a.rows);
    double *tau = am_arena_take(work, (size_t)tau_room(&a.grid->layout, a.cols) * sizeof(double));
    const size_t after = am_arena_mark(work);
    am_matrix_transpose(a, columns);
    reflect_all(work, columns, tau);
    am_arena_release(work, after);
    unpack(columns, r);
    form_all(work, columns, tau, am_int(q.cols));
    am_arena_release(work, after);
    am_matrix_transpose(am_matrix_part(columns, 0, 0, q.cols, q.rows), q);
    const int rc = turn_all(work, q, r);
    am_arena_release(work, mark);
    return rc;
}

/* ---- eigenvalues ---- */

static int64_t eigen_room(const am_layout *on, int64_t n)
{
    const int64_t row = am_layout_most(on, n, on->rows), col = am_layout_most(on, n, on->cols);
    const int64_t asked =
        1 + 11 * n + 2 * (row + on->block) * (col + on->block) + on->block * (row + col + 4);
    return asked + asked / 50 + 64;
}

static int64_t eigen_integers(const am_layout *on, int64_t n)
{
    return 7 * n + 8 * (int64_t)most(on->rows, on->cols) + 2;
}

int64_t am_grid_eigen_bytes(const am_layout *on, int64_t n)
{
    const int64_t room = am_grid_room_bytes(eigen_room(on, n)) +
                         (int64_t)am_arena_need((size_t)eigen_integers(on, n) * sizeof(int));
    return am_matrix_bytes_on(on, n, n) + most(room, am_grid_fix_signs_bytes(n));
}

static int eigen_factors_all(am_arena *work, am_matrix a, double *values, am_matrix z)
{
    const am_grid *g = a.grid;
    const am_described at = am_describe(a), to = am_describe(z);
    const int n = am_int(a.rows), query = -1;
    const int64_t room = eigen_room(&g->layout, n);
    const int liwork = am_int(eigen_integers(&g->layout, n));
    double answer = 0, *space = am_arena_take(work, (size_t)room * sizeof *space);
    int *whole = am_arena_take(work, (size_t)liwork * sizeof *whole), info = 0, integers = 0;
    pdsyevd_("V", "U", &n, a.at, &at.i, &at.j, at.at, values, z.at, &to.i, &to.j, to.at, &answer,
             &query, &integers, &liwork, &info, 1, 1);
    AM_ASSERT(info == 0);
    const int lwork = am_grid_room(answer, room);
    pdsyevd_("V", "U", &n, a.at, &at.i, &at.j, at.at, values, z.at, &to.i, &to.j, to.at, space,
             &lwork, whole, &liwork, &info, 1, 1);
    am_grid_settle(g);
    int rc = am_lapack_info("eigenvalues", "pdsyevd", info, "no convergence");
    AM_AGREE(g->comm);
    rc = am_bcast_all(g->comm, 0, values, n * (int64_t)sizeof *values);
cleanup:
    return rc;
}

int am_grid_eigen_all(am_arena *work, am_matrix a, double *values)
{
    const size_t mark = am_arena_mark(work);
    const am_matrix z = am_matrix_take_like(work, a, a.rows, a.rows);
    const size_t after = am_arena_mark(work);
    int rc = 0;
    AM_TRY(eigen_factors_all(work, a, values, z));
    am_matrix_copy(z, a);
    am_arena_release(work, after);
    rc = am_grid_fix_signs_all(work, a, (am_matrix){0});
cleanup:
    am_arena_release(work, mark);
    return rc;
}
