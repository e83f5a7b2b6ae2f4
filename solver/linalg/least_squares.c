/* Least squares by dgelsd: our rows are Fortran's columns, and so x a = b is its a^T x = b.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/least_squares.h"

#include <float.h>
#include <stddef.h>
#include "mpi/bigcount.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/grid.h"
#include "solver/linalg/svd.h"

extern void dgelsd_(const int *m, const int *n, const int *nrhs, double *a, const int *lda,
                    double *b, const int *ldb, double *s, const double *rcond, int *rank,
                    double *work, const int *lwork, int *iwork, int *info);

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void workspace(int64_t unknowns, int64_t equations, int64_t r, int *reals, int *integers)
{
    const int m = am_int(equations), n = am_int(unknowns), nrhs = am_int(r), query = -1;
    const int ldb = m > n ? m : n;
    double none = 0, answer = 0;
    const double rcond = -1;
    int info = 0, rank = 0;
    dgelsd_(&m, &n, &nrhs, &none, &m, &none, &ldb, &none, &rcond, &rank, &answer, &query, integers,
            &info);
    AM_ASSERT(info == 0);
    *reals = am_lapack_work(answer);
}

int64_t am_least_squares_bytes(int64_t n, int64_t m, int64_t r)
{
    return am_least_squares_bytes_on(NULL, n, m, r);
}

int64_t am_least_squares_bytes_on(const am_layout *on, int64_t n, int64_t m, int64_t r)
{
    const int64_t k = least(n, m);
    int reals = 0, integers = 0;
    if (k == 0 || r == 0) {
        return 0;
    }
    if (on != NULL) {
        return am_matrix_bytes_on(on, n, k) + am_matrix_bytes_on(on, k, m) +
               am_matrix_bytes_on(on, r, k) + am_matrix_bytes(1, k) + am_svd_bytes_on(on, n, m, k);
    }
    workspace(n, m, r, &reals, &integers);
    return am_matrix_bytes(1, reals) + am_matrix_bytes(1, k) +
           (int64_t)am_arena_need((size_t)integers * sizeof(int));
}

static int solve(am_arena *work, am_matrix a, am_matrix b, double smallest, int64_t *rank)
{
    const int m = am_int(a.cols), n = am_int(a.rows), nrhs = am_int(b.rows);
    const int lda = am_int(a.step), ldb = am_int(b.step);
    int reals = 0, integers = 0, info = 0, found = 0;
    workspace(a.rows, a.cols, b.rows, &reals, &integers);
    double *room = am_arena_take(work, (size_t)reals * sizeof *room);
    double *s = am_arena_take(work, (size_t)least(a.rows, a.cols) * sizeof *s);
    int *whole = am_arena_take(work, (size_t)integers * sizeof *whole);
    dgelsd_(&m, &n, &nrhs, a.at, &lda, b.at, &ldb, s, &smallest, &found, room, &reals, whole,
            &info);
    *rank = found;
    return am_lapack_info("least squares", "dgelsd", info, "no convergence");
}

/* On a grid: with a = u diag(s) vt, x = b vt^T diag(s)^-1 u^T of the singular values that count. */
static int solve_spread(am_arena *work, am_matrix a, am_matrix b, double smallest, int64_t *rank)
{
    const int64_t k = least(a.rows, a.cols), n = a.rows, m = a.cols;
    const am_matrix u = am_matrix_take_like(work, a, n, k), vt = am_matrix_take_like(work, a, k, m);
    const am_matrix along = am_matrix_take_like(work, a, b.rows, k);
    double *s = am_matrix_take(work, 1, k).at;
    const double least_s = smallest < 0 ? DBL_EPSILON : smallest;
    const int rc = am_svd(work, a, u, s, vt);
    if (rc != 0) {
        return rc;
    }
    while (*rank < k && s[*rank] > least_s * s[0]) {
        (*rank)++;
    }
    am_multiply(1, am_matrix_part(b, 0, 0, b.rows, m), AM_AS_IS, vt, AM_TRANSPOSED, 0, along);
    const am_matrix taken = am_matrix_part(along, 0, 0, b.rows, *rank);
    const am_matrix here = am_matrix_local(taken);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] /= s[am_matrix_col(taken, j)];
        }
    }
    am_multiply(1, taken, AM_AS_IS, am_matrix_part(u, 0, 0, n, *rank), AM_TRANSPOSED, 0,
                am_matrix_part(b, 0, 0, b.rows, n));
    return 0;
}

int am_least_squares(am_arena *work, am_matrix a, am_matrix b, double smallest, int64_t *rank)
{
    const size_t mark = am_arena_mark(work);
    const int64_t k = least(a.rows, a.cols);
    AM_ASSERT(b.cols >= a.rows && b.cols >= a.cols);
    int rc = am_lapack_check("least squares", a);
    AM_KEEP(am_lapack_check("least squares", am_matrix_part(b, 0, 0, b.rows, a.cols)));
    *rank = 0;
    if (rc == 0 && k > 0 && b.rows > 0) {
        rc = a.grid != NULL ? solve_spread(work, a, b, smallest, rank)
                            : solve(work, a, b, smallest, rank);
    } else if (rc == 0) {
        am_matrix_fill(am_matrix_part(b, 0, 0, b.rows, a.rows), 0);
    }
    am_arena_release(work, mark);
    return rc;
}
