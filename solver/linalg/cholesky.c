/* Cholesky factors by dpotrf, dpotrs and dtrtri. Our lower triangle is Fortran's upper one.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/cholesky.h"

#include <stddef.h>
#include "mpi/bigcount.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/grid.h"

extern void dpotrf_(const char *triangle, const int *n, double *a, const int *lda, int *info,
                    size_t length);
extern void dtrtri_(const char *triangle, const char *diagonal, const int *n, double *a,
                    const int *lda, int *info, size_t length_triangle, size_t length_diagonal);
extern void dpotrs_(const char *triangle, const int *n, const int *nrhs, const double *a,
                    const int *lda, double *b, const int *ldb, int *info, size_t length);

int am_cholesky(am_matrix a)
{
    const int n = am_int(a.rows), lda = am_int(a.step);
    int info = 0;
    AM_ASSERT(a.rows == a.cols);
    int rc = am_lapack_check("Cholesky factorisation", a);
    if (rc == 0 && n > 0 && a.grid != NULL) {
        return a.grid->ops->cholesky(a);
    }
    if (rc == 0 && n > 0) {
        dpotrf_("U", &n, a.at, &lda, &info, 1);
        rc = am_lapack_info("Cholesky factorisation", "dpotrf", info,
                            "the matrix is not positive definite");
    }
    for (int64_t i = 0; rc == 0 && i < a.rows; i++) {
        for (int64_t j = i + 1; j < a.cols; j++) {
            a.at[i * a.step + j] = 0;
        }
    }
    return rc;
}

int am_cholesky_invert(am_matrix l)
{
    const int n = am_int(l.rows), lda = am_int(l.step);
    int info = 0;
    AM_ASSERT(l.rows == l.cols);
    if (n > 0 && l.grid != NULL) {
        return l.grid->ops->cholesky_invert(l);
    }
    if (n > 0) {
        dtrtri_("U", "N", &n, l.at, &lda, &info, 1, 1);
    }
    return am_lapack_info("inverse of Cholesky factors", "dtrtri", info, "the matrix is singular");
}

int am_cholesky_solve(am_matrix l, am_matrix b)
{
    const int n = am_int(l.rows), lda = am_int(l.step);
    const int nrhs = am_int(b.rows), ldb = am_int(b.step);
    int info = 0;
    AM_ASSERT(l.rows == l.cols && b.cols == l.rows);
    int rc = am_lapack_check("solution by Cholesky factors", b);
    if (rc == 0 && n > 0 && nrhs > 0 && l.grid != NULL) {
        return l.grid->ops->cholesky_solve(l, b);
    }
    if (rc == 0 && n > 0 && nrhs > 0) {
        dpotrs_("U", &n, &nrhs, l.at, &lda, b.at, &ldb, &info, 1);
        rc = am_lapack_info("solution by Cholesky factors", "dpotrs", info, "no solution");
    }
    return rc;
}
