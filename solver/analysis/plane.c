/* Principal components of points that are known by their inner products: see plane.h.
 *
 *     K = (I - 1 m^T) G (I - m 1^T),  m: the mean of the distinct points
 *     K U = U diag(lambda) on these;  place_ic = sqrt(lambda_c) U_ic,  weight_ic = U_ic /
 * sqrt(lambda_c)
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/analysis/plane.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "solver/linalg/symmetric.h"

/* The first point that is equal to point i. */
static int64_t twin(int64_t n, const double *gram, int64_t i)
{
    for (int64_t j = 0; j < i; j++) {
        if (gram[i * n + i] + gram[j * n + j] - 2 * gram[i * n + j] == 0) {
            return j;
        }
    }
    return i;
}

/* k [m,m] := centred inner products of the points at[0..m). */
static void centre(int64_t n, const double *gram, int64_t m, const int64_t *at, double *k)
{
    double all = 0;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < m; j++) {
            k[i * m + j] = gram[at[i] * n + at[j]];
            all += k[i * m + j];
        }
    }
    all /= (double)(m * m);
    /* Sums of rows, kept apart: the rows change meanwhile. */
    double *row = k + m * m;
    for (int64_t i = 0; i < m; i++) {
        row[i] = 0;
        for (int64_t j = 0; j < m; j++) {
            row[i] += k[i * m + j];
        }
        row[i] /= (double)m;
    }
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < m; j++) {
            k[i * m + j] -= row[i] + row[j] - all;
        }
    }
}

int am_plane_make(int64_t n, const double *gram, double *middle, double *weight, double *place,
                  double *distance, double *explained)
{
    int64_t m = 0, *at = am_new(n, sizeof *at, "a plane"),
            *same = am_new(n, sizeof *same, "a plane");
    double *k = am_new(n * n + 2 * n, sizeof *k, "a plane"),
           *square = k != NULL ? k + n * n + n : NULL;
    double *value = am_new(n, sizeof *value, "a plane"), variance = 0;
    int rc = at == NULL || same == NULL || k == NULL || value == NULL ? AM_E_NOMEM : 0;
    if (rc != 0) {
        goto cleanup;
    }
    for (int64_t i = 0; i < n; i++) {
        same[i] = twin(n, gram, i);
        if (same[i] == i) {
            at[m++] = i;
        }
    }
    centre(n, gram, m, at, k);
    for (int64_t i = 0; i < m; i++) {
        square[i] = k[i * m + i];
        variance += square[i];
    }
    rc = am_symmetric_eigen(m, k, value);
    if (rc != 0) {
        goto cleanup;
    }
    memset(middle, 0, (size_t)n * sizeof *middle);
    memset(weight, 0, (size_t)(2 * n) * sizeof *weight);
    memset(place, 0, (size_t)(2 * n) * sizeof *place);
    for (int c = 0; c < 2; c++) {
        const double lambda = m > c + 1 ? value[m - 1 - c] : 0; /* m points span m - 1 */
        const double *u = k + (m - 1 - c) * m;
        explained[c] = lambda / variance;
        if (!(lambda > (double)m * DBL_EPSILON * variance)) {
            explained[c] = variance > 0 ? 0 : NAN;
            continue; /* what rounding left */
        }
        const double root = u[0] > 0 ? -sqrt(lambda) : sqrt(lambda);
        for (int64_t i = 0; i < m; i++) {
            weight[2 * at[i] + c] = u[i] / root;
            place[2 * at[i] + c] = u[i] * root;
        }
    }
    for (int64_t i = 0; i < m; i++) {
        const double *x = &place[2 * at[i]];
        middle[at[i]] = 1 / (double)m;
        distance[at[i]] = sqrt(fmax(0, square[i] - x[0] * x[0] - x[1] * x[1]));
    }
    for (int64_t i = 0; i < n; i++) {
        distance[i] = distance[same[i]];
        place[2 * i] = place[2 * same[i]];
        place[2 * i + 1] = place[2 * same[i] + 1];
    }
cleanup:
    free(at);
    free(same);
    free(k);
    free(value);
    return rc;
}
