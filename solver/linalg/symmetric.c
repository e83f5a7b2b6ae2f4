/* Eigenvalues of symmetric matrices, by LAPACK's dsyev. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/symmetric.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "solver/linalg/blas.h"

/* Fortran: columns of a are vectors, so rows in C; lengths of texts come last. */
extern void dsyev_(const char *job, const char *half, const int *n, double *a, const int *ld,
                   double *w, double *work, const int *work_length, int *info, size_t job_length,
                   size_t half_length);

enum { WORK = 34 }; /* reals a row: blocks of 32 columns */

int am_symmetric_eigen(int64_t n, double *matrix, double *value)
{
    const int order = am_int(n), length = am_int(WORK * n);
    int info = 0;
    for (int64_t i = 0; i < n * n; i++) {
        if (!isfinite(matrix[i])) {
            return am_fail(AM_E_NUMERIC,
                           "eigenvalues: element %lld, %lld of the matrix is not "
                           "finite",
                           (long long)(i / n), (long long)(i % n));
        }
    }
    double *work = am_new(length, sizeof *work, "eigenvalues");
    if (work == NULL) {
        return AM_E_NOMEM;
    }
    am_blas_single_thread();
    dsyev_("V", "U", &order, matrix, &order, value, work, &length, &info, 1, 1);
    free(work);
    return info == 0 ? 0
                     : am_fail(AM_E_NUMERIC,
                               "eigenvalues: no convergence for a symmetric matrix of order %d "
                               "(LAPACK dsyev: %d)",
                               order, info);
}
