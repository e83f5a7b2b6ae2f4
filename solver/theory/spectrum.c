/* Spectral norms: see spectrum.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/spectrum.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/rng.h"
#include "solver/analysis/eigen.h"
#include "solver/theory/vectors.h"

enum { MATRIX_STEPS = 3000, HESSIAN_PRODUCTS = 80 };
static const double hessian_tolerance = 1e-4; /* the residual is added to the norm */

/* ---- Hessians ---- */

typedef struct hessian {
    const am_oracle *oracle;
    int task;
    const double *theta;
    bool is_agreed; /* an error that all ranks have */
} hessian;

/* A rank may have failed before its first product: the others meet it here. */
static int apply_all(void *self, const double *v, double *out)
{
    hessian *h = self;
    int rc = am_agree_all(h->oracle->comm, AM_OK);
    if (rc == AM_OK) {
        rc = h->oracle->product_all(h->oracle->self, h->task, h->theta, v, out);
    }
    h->is_agreed = rc != AM_OK;
    return rc;
}

int am_theory_hessian_norm_all(const am_oracle *oracle, int task, const double *theta,
                               uint64_t seed, double *norm)
{
    hessian h = {.oracle = oracle, .task = task, .theta = theta};
    double value = NAN, residual = NAN;
    const am_operator of_task = {.self = &h, .n = oracle->n, .apply = apply_all};
    const am_eigen_options options = {.order = AM_EIGEN_MAGNITUDE,
                                      .wanted = 1,
                                      .most = oracle->n < HESSIAN_PRODUCTS ? (int)oracle->n
                                                                           : HESSIAN_PRODUCTS,
                                      .tolerance = hessian_tolerance,
                                      .seed = seed};
    am_eigen_result result = {.value = &value, .residual = &residual};
    const int rc = am_eigen_lanczos(&of_task, &options, &result);
    *norm = fabs(value) + residual;
    return h.is_agreed ? rc : am_agree_all(oracle->comm, rc);
}

/* ---- matrices ---- */

/* y [rows] = [w bias] x */
static void product(int64_t rows, int64_t columns, const double *w, const double *bias,
                    const double *x, double *y)
{
    for (int64_t i = 0; i < rows; i++) {
        double lanes[8] = {0};
        for (int64_t j = 0; j < columns; j++) {
            lanes[j % 8] += w[i * columns + j] * x[j];
        }
        y[i] = bias != NULL ? bias[i] * x[columns] : 0;
        for (int l = 0; l < 8; l++) {
            y[i] += lanes[l];
        }
    }
}

/* x = [w bias]^T y */
static void transposed(int64_t rows, int64_t columns, const double *w, const double *bias,
                       const double *y, double *x)
{
    for (int64_t j = 0; j < columns + (bias != NULL); j++) {
        x[j] = 0;
    }
    for (int64_t i = 0; i < rows; i++) {
        am_theory_add(columns, y[i], w + i * columns, x);
        if (bias != NULL) {
            x[columns] += y[i] * bias[i];
        }
    }
}

int am_theory_matrix_norm(int64_t rows, int64_t columns, const double *w, const double *bias,
                          double *norm)
{
    const int64_t n = columns + (bias != NULL);
    const am_rng rng = am_rng_make(0, "spectral norm", 0, 0, "");
    double *x = am_new(n + rows, sizeof *x, "spectral norms");
    if (x == NULL) {
        return AM_E_NOMEM;
    }
    double *y = x + n;
    for (int64_t j = 0; j < n; j++) {
        x[j] = am_rng_normal(&rng, j);
    }
    *norm = 0;
    for (int step = 0; step < MATRIX_STEPS; step++) {
        const double size = am_theory_norm(n, x), before = *norm;
        if (!(size > 0)) {
            *norm = isnan(size) ? NAN : 0;
            break;
        }
        for (int64_t j = 0; j < n; j++) {
            x[j] /= size;
        }
        product(rows, columns, w, bias, x, y);
        *norm = am_theory_norm(rows, y);
        if (!isfinite(*norm) || *norm - before <= 1e-12 * *norm) {
            break;
        }
        transposed(rows, columns, w, bias, y, x);
    }
    free(x);
    return AM_OK;
}
