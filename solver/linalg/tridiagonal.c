/* Eigenvalues of symmetric tridiagonal matrices, by LAPACK's dstev.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/tridiagonal.h"

#include <math.h>
#include <stddef.h>
#include "mpi/bigcount.h"
#include "mpi/error.h"

/* Fortran: columns of z are vectors, so rows in C; lengths of texts come last. */
extern void dstev_(const char *job, const int *n, double *d, double *e, double *z, const int *ld,
                   double *work, int *info, size_t job_length);

int am_tridiagonal_eigen(int64_t n, double *diagonal, double *beside, double *vectors, double *work)
{
    const int order = am_int(n);
    int info = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(diagonal[i]) || (i + 1 < n && !isfinite(beside[i]))) {
            return am_fail(AM_E_NUMERIC, "eigenvalues: element %lld of the matrix is not finite",
                           (long long)i);
        }
    }
    dstev_("V", &order, diagonal, beside, vectors, &order, work, &info, 1);
    return info == 0 ? 0
                     : am_fail(AM_E_NUMERIC,
                               "eigenvalues: no convergence for a tridiagonal matrix of order %d "
                               "(LAPACK dstev: %d)",
                               order, info);
}
