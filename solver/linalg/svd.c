/* Singular value decompositions by dgesdd and dgesvd.
 *
 * Fortran sees the transposed matrix, a^T = v diag(s) u^T: its first factor, by columns, is our vt
 * by rows, and its second one our u. Nothing is transposed. SPDX-License-Identifier: BSD-3-Clause
 */
#include "solver/linalg/svd.h"

#include <float.h>
#include <stddef.h>
#include "mpi/bigcount.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/grid.h"

extern void dgesdd_(const char *job, const int *m, const int *n, double *a, const int *lda,
                    double *s, double *u, const int *ldu, double *vt, const int *ldvt, double *work,
                    const int *lwork, int *iwork, int *info, size_t job_length);
extern void dgesvd_(const char *job_u, const char *job_vt, const int *m, const int *n, double *a,
                    const int *lda, double *s, double *u, const int *ldu, double *vt,
                    const int *ldvt, double *work, const int *lwork, int *info, size_t length_u,
                    size_t length_vt);

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Elements of workspace; both routines use it. */
static int workspace(int64_t rows, int64_t cols)
{
    const int m = am_int(cols), n = am_int(rows), k = am_int(least(rows, cols)), query = -1;
    const int ldu = m, ldvt = k;
    double conquer = 0, iterate = 0, none = 0;
    int info = 0, iwork = 0;
    dgesdd_("S", &m, &n, &none, &m, &none, &none, &ldu, &none, &ldvt, &conquer, &query, &iwork,
            &info, 1);
    AM_ASSERT(info == 0);
    dgesvd_("S", "S", &m, &n, &none, &m, &none, &none, &ldu, &none, &ldvt, &iterate, &query, &info,
            1, 1);
    AM_ASSERT(info == 0);
    return am_lapack_work(conquer > iterate ? conquer : iterate);
}

int64_t am_svd_bytes(int64_t m, int64_t n)
{
    return am_svd_bytes_on(NULL, m, n);
}

int64_t am_svd_bytes_on(const am_layout *on, int64_t m, int64_t n)
{
    const int64_t k = least(m, n);
    if (on != NULL) {
        return am_grid_svd_bytes(on, m, n);
    }
    return k == 0 ? 0
                  : am_matrix_bytes(m, n) + am_matrix_bytes(1, workspace(m, n)) +
                        (int64_t)am_arena_need((size_t)(8 * k) * sizeof(int));
}

static int factorise(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt)
{
    const int m = am_int(a.cols), n = am_int(a.rows), lda = am_int(a.step);
    const int ldu = am_int(vt.step), ldvt = am_int(u.step), lwork = workspace(a.rows, a.cols);
    const am_matrix kept = am_matrix_take(work, a.rows, a.cols);
    double *room = am_arena_take(work, (size_t)lwork * sizeof *room);
    int *iwork = am_arena_take(work, (size_t)(8 * u.cols) * sizeof *iwork), info = 0;
    am_matrix_copy(a, kept);
    dgesdd_("S", &m, &n, a.at, &lda, s, vt.at, &ldu, u.at, &ldvt, room, &lwork, iwork, &info, 1);
    AM_ASSERT(info >= 0);
    if (info == 0) {
        return 0;
    }
    am_matrix_copy(kept, a);
    dgesvd_("S", "S", &m, &n, a.at, &lda, s, vt.at, &ldu, u.at, &ldvt, room, &lwork, &info, 1, 1);
    return am_lapack_info("singular values", "dgesvd", info, "no convergence");
}

int am_svd(am_arena *work, am_matrix a, am_matrix u, double *s, am_matrix vt)
{
    const size_t mark = am_arena_mark(work);
    const int64_t k = least(a.rows, a.cols);
    AM_ASSERT(u.rows == a.rows && u.cols == k && vt.rows == k && vt.cols == a.cols);
    int rc = am_lapack_check("singular values", a);
    if (rc == 0 && k > 0) {
        rc = a.grid != NULL ? a.grid->ops->svd(work, a, u, s, vt) : factorise(work, a, u, s, vt);
    }
    if (rc == 0 && a.grid == NULL) {
        am_fix_signs(vt, u, true);
    }
    am_arena_release(work, mark);
    return rc;
}

int64_t am_svd_rank(int64_t m, int64_t n, const double *s)
{
    const int64_t k = least(m, n);
    const double least_s = k == 0 ? 0 : (double)(m > n ? m : n) * DBL_EPSILON * s[0];
    int64_t rank = 0;
    while (rank < k && s[rank] > least_s) {
        rank++;
    }
    return rank;
}
