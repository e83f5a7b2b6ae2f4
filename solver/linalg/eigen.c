/* Symmetric eigenvalues by dsyevd. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/eigen.h"

#include <stddef.h>
#include "mpi/bigcount.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/grid.h"

/* Columns of the result are vectors, so rows in C; a lower triangle is Fortran's upper one. */
extern void dsyevd_(const char *job, const char *triangle, const int *n, double *a, const int *lda,
                    double *w, double *work, const int *lwork, int *iwork, const int *liwork,
                    int *info, size_t length_job, size_t length_triangle);

static void workspace(int64_t n, int *reals, int *integers)
{
    const int order = am_int(n), query = -1;
    double none = 0, answer = 0;
    int info = 0;
    dsyevd_("V", "U", &order, &none, &order, &none, &answer, &query, integers, &query, &info, 1, 1);
    AM_ASSERT(info == 0);
    *reals = am_lapack_work(answer);
}

int64_t am_symmetric_eigen_bytes(int64_t n)
{
    int reals = 0, integers = 0;
    if (n == 0) {
        return 0;
    }
    workspace(n, &reals, &integers);
    return am_matrix_bytes(1, reals) + (int64_t)am_arena_need((size_t)integers * sizeof(int));
}

int am_symmetric_eigen(am_arena *work, am_matrix a, double *values)
{
    const size_t mark = am_arena_mark(work);
    const int n = am_int(a.rows), lda = am_int(a.step);
    int reals = 0, integers = 0, info = 0;
    AM_ASSERT(a.rows == a.cols);
    int rc = am_lapack_check("eigenvalues", a);
    if (rc == 0 && n > 0 && a.grid != NULL) {
        return a.grid->ops->eigen(work, a, values);
    }
    if (rc == 0 && n > 0) {
        workspace(n, &reals, &integers);
        double *room = am_arena_take(work, (size_t)reals * sizeof *room);
        int *whole = am_arena_take(work, (size_t)integers * sizeof *whole);
        dsyevd_("V", "U", &n, a.at, &lda, values, room, &reals, whole, &integers, &info, 1, 1);
        rc = am_lapack_info("eigenvalues", "dsyevd", info, "no convergence");
    }
    if (rc == 0) {
        am_fix_signs(a, (am_matrix){0}, false);
    }
    am_arena_release(work, mark);
    return rc;
}
