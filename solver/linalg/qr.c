/* QR by dgeqrf, with pivoting dgeqp3, and dorgqr. Columns are what is pivoted, so the matrix is
 * transposed for Fortran. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/qr.h"

#include <stddef.h>
#include "mpi/bigcount.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/grid.h"

extern void dgeqrf_(const int *m, const int *n, double *a, const int *lda, double *tau,
                    double *work, const int *lwork, int *info);
extern void dgeqp3_(const int *m, const int *n, double *a, const int *lda, int *pivot, double *tau,
                    double *work, const int *lwork, int *info);
extern void dorgqr_(const int *m, const int *n, const int *k, double *a, const int *lda,
                    const double *tau, double *work, const int *lwork, int *info);

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int workspace(int64_t rows, int64_t cols)
{
    const int m = am_int(rows), n = am_int(cols), k = am_int(least(rows, cols)), query = -1;
    double none = 0, plain = 0, pivoted = 0, form = 0;
    int info = 0, pivot = 0;
    dgeqrf_(&m, &n, &none, &m, &none, &plain, &query, &info);
    dgeqp3_(&m, &n, &none, &m, &pivot, &none, &pivoted, &query, &info);
    dorgqr_(&m, &k, &k, &none, &m, &none, &form, &query, &info);
    AM_ASSERT(info == 0);
    const double most = plain > pivoted ? plain : pivoted;
    return am_lapack_work(most > form ? most : form);
}

int64_t am_qr_bytes(int64_t m, int64_t n)
{
    const int64_t k = least(m, n);
    return k == 0 ? 0
                  : am_matrix_bytes(n, m) + am_matrix_bytes(1, k) +
                        am_matrix_bytes(1, workspace(m, n));
}

/* r out of the factored columns; its rows, and q's columns, turned to a diagonal >= 0. */
static void unpack(am_matrix columns, am_matrix q, am_matrix r)
{
    for (int64_t i = 0; i < r.rows; i++) {
        const double sign = columns.at[i * columns.step + i] < 0 ? -1 : 1;
        for (int64_t j = 0; j < r.cols; j++) {
            r.at[i * r.step + j] = j < i ? 0 : sign * columns.at[j * columns.step + i];
        }
        q.at[i] = sign; /* until q is formed */
    }
}

static void form(am_matrix columns, am_matrix q, double *tau, double *room, int lwork)
{
    const int m = am_int(q.rows), k = am_int(q.cols), ld = am_int(columns.step);
    int info = 0;
    dorgqr_(&m, &k, &k, columns.at, &ld, tau, room, &lwork, &info);
    AM_ASSERT(info == 0);
    for (int64_t i = 0; i < q.cols; i++) { /* before row 0 of q is overwritten */
        columns.at[i * columns.step] *= q.at[i];
        for (int64_t j = 1; j < q.rows; j++) {
            columns.at[i * columns.step + j] *= q.at[i];
        }
    }
    am_matrix_transpose(am_matrix_part(columns, 0, 0, q.cols, q.rows), q);
}

static void factorise(am_arena *work, am_matrix a, am_matrix q, am_matrix r, int *pivot)
{
    const int m = am_int(a.rows), n = am_int(a.cols), lwork = workspace(a.rows, a.cols);
    const am_matrix columns = am_matrix_take(work, a.cols, a.rows);
    double *tau = am_arena_take(work, (size_t)q.cols * sizeof *tau);
    double *room = am_arena_take(work, (size_t)lwork * sizeof *room);
    int info = 0;
    am_matrix_transpose(a, columns);
    if (pivot == NULL) {
        dgeqrf_(&m, &n, columns.at, &m, tau, room, &lwork, &info);
    } else {
        for (int j = 0; j < n; j++) {
            pivot[j] = 0; /* free to move */
        }
        dgeqp3_(&m, &n, columns.at, &m, pivot, tau, room, &lwork, &info);
        for (int j = 0; j < n; j++) {
            pivot[j]--;
        }
    }
    AM_ASSERT(info == 0);
    unpack(columns, q, r);
    form(columns, q, tau, room, lwork);
}

int am_qr(am_arena *work, am_matrix a, am_matrix q, am_matrix r, int *pivot)
{
    const size_t mark = am_arena_mark(work);
    const int64_t k = least(a.rows, a.cols);
    AM_ASSERT(q.rows == a.rows && q.cols == k && r.rows == k && r.cols == a.cols);
    const int rc = am_lapack_check("QR factorisation", a);
    if (rc == 0 && k > 0 && a.grid != NULL) {
        AM_ASSERT(pivot == NULL); /* not on a grid */
        return a.grid->ops->qr(work, a, q, r);
    }
    if (rc == 0 && k > 0) {
        factorise(work, a, q, r, pivot);
    }
    for (int j = 0; rc == 0 && k == 0 && pivot != NULL && j < a.cols; j++) {
        pivot[j] = j;
    }
    am_arena_release(work, mark);
    return rc;
}

/* ---- in place ---- */

/* Fortran has the rows as columns. */
static int workspace_of_rows(int64_t n_, int64_t m_)
{
    const int m = am_int(m_), n = am_int(n_), query = -1;
    double none = 0, reflect = 0, form = 0;
    int info = 0;
    dgeqrf_(&m, &n, &none, &m, &none, &reflect, &query, &info);
    dorgqr_(&m, &n, &n, &none, &m, &none, &form, &query, &info);
    AM_ASSERT(info == 0);
    return am_lapack_work(reflect > form ? reflect : form);
}

int64_t am_qr_rows_bytes_on(const am_layout *on, int64_t n, int64_t m)
{
    if (n == 0) {
        return 0;
    }
    return on != NULL ? am_grid_qr_rows_bytes(on, n, m)
                      : am_matrix_bytes(1, n) + am_matrix_bytes(1, workspace_of_rows(n, m));
}

static void orthonormalise(am_arena *work, am_matrix a)
{
    const int m = am_int(a.cols), n = am_int(a.rows), ld = am_int(a.step);
    const int lwork = workspace_of_rows(n, m);
    double *tau = am_matrix_take(work, 1, n).at, *room = am_matrix_take(work, 1, lwork).at;
    int info = 0;
    dgeqrf_(&m, &n, a.at, &ld, tau, room, &lwork, &info);
    AM_ASSERT(info == 0);
    dorgqr_(&m, &n, &n, a.at, &ld, tau, room, &lwork, &info);
    AM_ASSERT(info == 0);
}

int am_qr_rows(am_arena *work, am_matrix a)
{
    const size_t mark = am_arena_mark(work);
    AM_ASSERT(a.rows <= a.cols);
    const int rc = am_lapack_check_finite("QR factorisation", a);
    if (rc == 0 && a.rows > 0 && a.grid != NULL) {
        a.grid->ops->qr_rows(work, a);
    } else if (rc == 0 && a.rows > 0) {
        orthonormalise(work, a);
    }
    am_arena_release(work, mark);
    return rc;
}
