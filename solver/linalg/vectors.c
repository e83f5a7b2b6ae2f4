/* Vectors: see vectors.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/vectors.h"

#include "mpi/clones.h"

AM_CLONES void am_vector_add(int64_t n, double a, const double *restrict x, double *restrict y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] += a * x[i];
    }
}
