/* Least squares by dgelsd: our rows are Fortran's columns, and so x a = b is its a^T x = b.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/least_squares.h"

#include <stddef.h>
#include "mpi/bigcount.h"
#include "solver/linalg/checked.h"

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
    const int64_t k = least(n, m);
    int reals = 0, integers = 0;
    if (k == 0 || r == 0) {
        return 0;
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

int am_least_squares(am_arena *work, am_matrix a, am_matrix b, double smallest, int64_t *rank)
{
    const size_t mark = am_arena_mark(work);
    const int64_t k = least(a.rows, a.cols);
    AM_ASSERT(b.cols >= a.rows && b.cols >= a.cols);
    int rc = am_lapack_check("least squares", a);
    AM_KEEP(am_lapack_check("least squares", am_matrix_part(b, 0, 0, b.rows, a.cols)));
    *rank = 0;
    if (rc == 0 && k > 0 && b.rows > 0) {
        rc = solve(work, a, b, smallest, rank);
    } else if (rc == 0) {
        am_matrix_fill(am_matrix_part(b, 0, 0, b.rows, a.rows), 0);
    }
    am_arena_release(work, mark);
    return rc;
}
