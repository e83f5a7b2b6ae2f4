/* Norms and angles: see vectors.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/vectors.h"

#include <math.h>
#include "mpi/partition.h"
#include "mpi/reduce.h"

double am_theory_dot(int64_t n, const double *x, const double *y)
{
    am_exact sum;
    am_exact_zero(&sum);
    for (int64_t i = 0; i < n; i += AM_CHUNK) {
        am_dot_chunk(x + i, y + i, n - i < AM_CHUNK ? n - i : AM_CHUNK, &sum);
    }
    return am_exact_round(&sum);
}

double am_theory_norm(int64_t n, const double *x)
{
    return sqrt(am_theory_dot(n, x, x));
}

double am_theory_cosine(int64_t n, const double *x, const double *y)
{
    return am_theory_dot(n, x, y) / (am_theory_norm(n, x) * am_theory_norm(n, y));
}

double am_theory_ulps(int64_t n, const double *x, const double *y, double factor,
                      const double *scale)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        const double size = fmax(fmax(fabs(x[i]), fabs(y[i])), fabs(factor * scale[i]));
        if (x[i] != y[i]) {
            most = fmax(most, fabs(x[i] - y[i]) / (nextafter(size, INFINITY) - size));
        }
    }
    return most;
}
