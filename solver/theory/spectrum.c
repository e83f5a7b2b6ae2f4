/* Spectra: see spectrum.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/theory/spectrum.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/rng.h"
#include "solver/linalg/vectors.h"
#include "solver/theory/vectors.h"

enum { MATRIX_STEPS = 3000, HESSIAN_PRODUCTS = 80, SPECTRUM_PRODUCTS = 100, EACH_PRODUCTS = 10 };
static const double hessian_tolerance = 1e-4; /* the residual is added to the norm */
static const double spectrum_tolerance = 1e-6;

/* ---- Hessians ---- */

typedef struct hessian {
    const am_oracle *oracle;
    int first, end; /* of the tasks whose losses are added */
    const double *theta;
    double *of_task; /* [n] */
} hessian;

static int apply_all(void *self, const double *v, double *out)
{
    const hessian *h = self;
    const am_oracle *oracle = h->oracle;
    int rc = AM_OK;
    AM_TRY(oracle->product_all(oracle->self, h->first, h->theta, v, out));
    for (int t = h->first + 1; t < h->end; t++) {
        AM_TRY(oracle->product_all(oracle->self, t, h->theta, v, h->of_task));
        am_vector_add(oracle->n, 1, h->of_task, out);
    }
cleanup:
    return rc;
}

static am_eigen_options norm_options(int64_t n, uint64_t seed)
{
    return (am_eigen_options){.order = AM_EIGEN_MAGNITUDE,
                              .wanted = 1,
                              .most = n < HESSIAN_PRODUCTS ? (int)n : HESSIAN_PRODUCTS,
                              .tolerance = hessian_tolerance,
                              .seed = seed};
}

int am_theory_spectrum_products(int64_t n, int wanted)
{
    const int products = SPECTRUM_PRODUCTS + EACH_PRODUCTS * wanted;
    return n < products ? (int)n : products;
}

static am_eigen_options spectrum_options(int64_t n, int wanted, uint64_t seed)
{
    return (am_eigen_options){.order = AM_EIGEN_LARGEST,
                              .wanted = wanted,
                              .most = am_theory_spectrum_products(n, wanted),
                              .tolerance = spectrum_tolerance,
                              .seed = seed};
}

/* Lanczos' own memory, and a product of one of several tasks. */
static int64_t lanczos_bytes(int64_t n, const am_eigen_options *options)
{
    return am_eigen_bytes(n, options) + n * (int64_t)sizeof(double);
}

int64_t am_theory_hessian_norm_bytes(int64_t n)
{
    const am_eigen_options options = norm_options(n, 0);
    return lanczos_bytes(n, &options);
}

int64_t am_theory_spectrum_bytes(int64_t n, int wanted)
{
    const am_eigen_options options = spectrum_options(n, wanted, 0);
    return lanczos_bytes(n, &options);
}

/* All memory is there on all ranks before the first product. What can fail after that fails on all:
 * the products agree, and what is made of them is the same bits on every rank. */
static int lanczos_all(const am_oracle *oracle, int first, int end, const double *theta,
                       am_eigen_options options, am_eigen_result *result)
{
    const int64_t n = oracle->n;
    double *room = am_new(lanczos_bytes(n, &options), 1, "curvatures");
    int rc = room == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(oracle->comm);
    hessian h = {.oracle = oracle, .first = first, .end = end, .theta = theta, .of_task = room};
    const am_operator of_tasks = {.self = &h, .n = n, .apply = apply_all};
    options.memory = room + n;
    rc = am_eigen_lanczos(&of_tasks, &options, result);
cleanup:
    free(room);
    return rc;
}

int am_theory_hessian_norm_all(const am_oracle *oracle, int task, const double *theta,
                               uint64_t seed, double *vector, double *norm)
{
    double value = NAN, residual = NAN;
    am_eigen_result result = {.value = &value, .residual = &residual, .vector = vector};
    am_eigen_options options = norm_options(oracle->n, seed);
    options.near = vector;
    const int rc = lanczos_all(oracle, task, task + 1, theta, options, &result);
    *norm = fabs(value) + residual;
    return rc;
}

int am_theory_spectrum_all(const am_oracle *oracle, int first, int end, const double *theta,
                           int wanted, uint64_t seed, am_eigen_result *result)
{
    return lanczos_all(oracle, first, end, theta, spectrum_options(oracle->n, wanted, seed),
                       result);
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
        am_vector_add(columns, y[i], w + i * columns, x);
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
