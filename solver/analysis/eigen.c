/* Lanczos and power iteration.
 *
 *     A Q = Q T + beta_m q_(m+1) e_m^T,  T tridiagonal:  alpha_j = q_j . A q_j on the diagonal,
 *     beta_j = |A q_j - alpha_j q_j - beta_(j-1) q_(j-1)| beside it
 *
 * A pair T s = theta s gives the pair (theta, Q s) of A with the residual |beta_m s_m|.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/analysis/eigen.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/clones.h"
#include "mpi/error.h"
#include "mpi/rng.h"
#include "solver/linalg/tridiagonal.h"
#include "solver/linalg/vectors.h"

enum { AM_EIGEN_LANES = 16, AM_EIGEN_CHECK = 5 }; /* products between looks at the residuals */

/* ---- vectors ---- */

AM_CLONES static double am_eigen_dot(int64_t n, const double *x, const double *y)
{
    double lane[AM_EIGEN_LANES] = {0};
    int64_t i = 0;
    for (; i + AM_EIGEN_LANES <= n; i += AM_EIGEN_LANES) {
        for (int j = 0; j < AM_EIGEN_LANES; j++) {
            lane[j] += x[i + j] * y[i + j];
        }
    }
    for (int j = 0; i + j < n; j++) {
        lane[j] += x[i + j] * y[i + j];
    }
    for (int half = AM_EIGEN_LANES / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; j++) {
            lane[j] += lane[j + half];
        }
    }
    return lane[0];
}

static double am_eigen_norm(int64_t n, const double *x)
{
    return sqrt(am_eigen_dot(n, x, x));
}

/* to := from / norm */
static void am_eigen_scale(int64_t n, double norm, const double *from, double *to)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = from[i] / norm;
    }
}

/* The start-th first vector, not yet of length 1. Only the very first one is near to something. */
static void am_eigen_draw(int64_t n, const am_eigen_options *o, int64_t start, double *v)
{
    const am_rng rng = am_rng_make(o->seed, "eigen", start, 0, "");
    const double length = o->near != NULL && start == 0 ? am_eigen_norm(n, o->near) : 0;
    for (int64_t i = 0; i < n; i++) {
        v[i] = am_rng_normal(&rng, i);
    }
    if (length > 0) {
        const double chance = AM_EIGEN_CHANCE / am_eigen_norm(n, v);
        for (int64_t i = 0; i < n; i++) {
            v[i] = chance * v[i] + o->near[i] / length;
        }
    }
}

/* ---- options and outcome ---- */

static int am_eigen_check(const am_operator *a, const am_eigen_options *o, int wanted)
{
    return a->n >= 1 && wanted >= 1 && wanted <= a->n && o->most >= wanted && o->tolerance >= 0
               ? 0
               : am_fail(AM_E_BUG,
                         "eigenvalues: %d of an operator of order %lld within %d products", wanted,
                         (long long)a->n, o->most);
}

static void am_eigen_none(am_eigen_result *result, int wanted)
{
    result->products = 0;
    result->is_converged = false;
    for (int i = 0; i < wanted; i++) {
        result->value[i] = NAN;
        result->residual[i] = NAN;
    }
}

int64_t am_eigen_bytes(int64_t n, const am_eigen_options *options)
{
    const int64_t most = options->most < n ? options->most : n;
    return ((most + 1) * n + most * (most + 7)) * (int64_t)sizeof(double);
}

/* Options are right, nothing is found, memory is there. */
static int am_eigen_open(const am_operator *a, const am_eigen_options *o, int wanted, int64_t bytes,
                         am_eigen_result *result, double **memory)
{
    int rc = am_eigen_check(a, o, wanted);
    if (rc == 0) {
        am_eigen_none(result, wanted);
        *memory = o->memory != NULL ? o->memory : am_new(bytes, 1, "eigenvalues");
        rc = *memory == NULL ? AM_E_NOMEM : 0;
    }
    return rc;
}

static void am_eigen_close(const am_eigen_options *o, double *memory)
{
    if (o->memory == NULL) {
        free(memory);
    }
}

/* ---- Lanczos ---- */

typedef struct am_lanczos {
    const am_operator *a;
    const am_eigen_options *o;
    int64_t n;
    int m, most;           /* columns of Q so far, at most */
    double *q;             /* [most + 1, n]: with the next one */
    double *alpha, *beta;  /* [most] each */
    double *theta, *small; /* [most] each: values of T and its copy beside the diagonal */
    double *s, *work;      /* [most, most], [2 most] */
    int *order;            /* [most] of the values, the first first */
    double scale;          /* largest |alpha| + |beta| + |beta before|: a bound of |T| */
    int64_t starts;        /* first vectors drawn */
    bool is_whole;         /* the Krylov space has ended */
} am_lanczos;

static void am_lanczos_make(const am_operator *a, const am_eigen_options *o, double *memory,
                            am_lanczos *out)
{
    const int64_t most = o->most < a->n ? o->most : a->n;
    *out = (am_lanczos){.a = a, .o = o, .n = a->n, .most = (int)most, .q = memory};
    out->alpha = memory + (most + 1) * a->n;
    out->beta = out->alpha + most;
    out->theta = out->beta + most;
    out->small = out->theta + most;
    out->work = out->small + most;
    out->s = out->work + 2 * most;
    out->order = (int *)(out->s + most * most);
}

static double *am_lanczos_column(const am_lanczos *z, int j)
{
    return z->q + (int64_t)j * z->n;
}

/* Take all columns [0, m) out of w, twice: once leaves rounding of what was taken. */
static void am_lanczos_clean(const am_lanczos *z, int m, double *w)
{
    for (int turn = 0; turn < 2; turn++) {
        for (int j = 0; j < m; j++) {
            const double *q = am_lanczos_column(z, j);
            am_vector_add(z->n, -am_eigen_dot(z->n, q, w), q, w);
        }
    }
}

/* A new first vector as column m, orthogonal to all before it. */
static void am_lanczos_start(am_lanczos *z)
{
    double *w = am_lanczos_column(z, z->m), norm = 0, length = 1;
    while (!(norm > 1e-8 * length)) { /* m < n: chance alone repeats it */
        am_eigen_draw(z->n, z->o, z->starts++, w);
        length = am_eigen_norm(z->n, w);
        am_lanczos_clean(z, z->m, w);
        norm = am_eigen_norm(z->n, w);
    }
    am_eigen_scale(z->n, norm, w, w);
    am_lanczos_clean(z, z->m, w);
    am_eigen_scale(z->n, am_eigen_norm(z->n, w), w, w);
}

/* One product: column m becomes a part of Q, alpha and beta of it are known, column m + 1 is next.
 * Returns false when the product is not finite. */
static bool am_lanczos_join(am_lanczos *z)
{
    const int m = z->m++;
    const double *q = am_lanczos_column(z, m);
    double *w = am_lanczos_column(z, m + 1);
    const double before = m > 0 ? z->beta[m - 1] : 0;
    z->alpha[m] = am_eigen_dot(z->n, q, w);
    am_lanczos_clean(z, m + 1, w);
    z->beta[m] = am_eigen_norm(z->n, w);
    if (!isfinite(z->alpha[m]) || !isfinite(z->beta[m])) {
        return false;
    }
    const double sum = fabs(z->alpha[m]) + z->beta[m] + before;
    z->scale = sum > z->scale ? sum : z->scale;
    /* Rounding of the products alone is left: the space is invariant. */
    z->is_whole = z->m == z->n || !(z->beta[m] > 32 * DBL_EPSILON * z->scale);
    if (z->is_whole) {
        z->beta[m] = 0;
    } else {
        am_eigen_scale(z->n, z->beta[m], w, w);
    }
    return true;
}

static bool am_lanczos_is_before(const am_lanczos *z, int i, int j)
{
    const double a = z->theta[i], b = z->theta[j];
    const bool by_magnitude = z->o->order == AM_EIGEN_MAGNITUDE && fabs(a) != fabs(b);
    return by_magnitude ? fabs(a) > fabs(b) : a > b || (a == b && i < j);
}

/* Values and vectors of T, in order. */
static int am_lanczos_solve(am_lanczos *z)
{
    const int m = z->m;
    memcpy(z->theta, z->alpha, (size_t)m * sizeof(double));
    memcpy(z->small, z->beta, (size_t)m * sizeof(double));
    const int rc = am_tridiagonal_eigen(m, z->theta, z->small, z->s, z->work);
    for (int i = 0; rc == 0 && i < m; i++) { /* insertion: nearly sorted */
        int at = i;
        for (; at > 0 && am_lanczos_is_before(z, i, z->order[at - 1]); at--) {
            z->order[at] = z->order[at - 1];
        }
        z->order[at] = i;
    }
    return rc;
}

static double am_lanczos_residual(const am_lanczos *z, int i)
{
    const double estimate = fabs(z->beta[z->m - 1] * z->s[(int64_t)i * z->m + z->m - 1]);
    const double rounding = DBL_EPSILON * z->scale;
    return estimate > rounding ? estimate : rounding;
}

/* What was found into the result. */
static void am_lanczos_report(const am_lanczos *z, am_eigen_result *result)
{
    double largest = 0;
    for (int i = 0; i < z->m; i++) {
        largest = fabs(z->theta[i]) > largest ? fabs(z->theta[i]) : largest;
    }
    const double limit = fmax(z->o->tolerance * largest, DBL_EPSILON * z->scale);
    result->is_converged = z->m >= z->o->wanted;
    for (int k = 0; k < z->o->wanted && k < z->m; k++) {
        const int i = z->order[k];
        result->value[k] = z->theta[i];
        result->residual[k] = am_lanczos_residual(z, i);
        result->is_converged = result->is_converged && result->residual[k] <= limit;
    }
}

/* Vector k of the result: Q s. */
static void am_lanczos_vectors(const am_lanczos *z, am_eigen_result *result)
{
    for (int k = 0; k < z->o->wanted && k < z->m; k++) {
        double *x = result->vector + k * z->n;
        const double *s = z->s + (int64_t)z->order[k] * z->m;
        memset(x, 0, (size_t)z->n * sizeof *x);
        for (int j = 0; j < z->m; j++) {
            am_vector_add(z->n, s[j], am_lanczos_column(z, j), x);
        }
        am_eigen_scale(z->n, am_eigen_norm(z->n, x), x, x);
    }
}

int am_eigen_lanczos(const am_operator *a, const am_eigen_options *options, am_eigen_result *result)
{
    am_lanczos z;
    double *memory = NULL;
    int rc = 0;
    bool is_finite = true, is_done = false;
    AM_TRY(
        am_eigen_open(a, options, options->wanted, am_eigen_bytes(a->n, options), result, &memory));
    am_lanczos_make(a, options, memory, &z);
    am_lanczos_start(&z);
    while (is_finite && !is_done) {
        AM_TRY(a->apply(a->self, am_lanczos_column(&z, z.m), am_lanczos_column(&z, z.m + 1)));
        result->products++;
        is_finite = am_lanczos_join(&z);
        const bool is_last = z.m == z.most || (z.is_whole && z.m >= options->wanted);
        if (is_finite && (is_last || z.m % AM_EIGEN_CHECK == 0)) {
            AM_TRY(am_lanczos_solve(&z));
            am_lanczos_report(&z, result);
            is_done = is_last || result->is_converged;
        }
        if (is_finite && !is_done && z.is_whole) {
            am_lanczos_start(&z);
        }
    }
    if (!is_finite) {
        const int products = result->products;
        am_eigen_none(result, options->wanted);
        result->products = products;
    } else if (result->vector != NULL) {
        am_lanczos_vectors(&z, result);
    }
cleanup:
    am_eigen_close(options, memory);
    return rc;
}

/* ---- power iteration ---- */

int am_eigen_power(const am_operator *a, const am_eigen_options *options, am_eigen_result *result)
{
    const int64_t n = a->n;
    double *v = NULL;
    int rc = 0;
    AM_TRY(am_eigen_open(a, options, 1, 2 * n * (int64_t)sizeof *v, result, &v));
    double *w = v + n;
    am_eigen_draw(n, options, 0, v);
    am_eigen_scale(n, am_eigen_norm(n, v), v, v);
    for (bool is_done = false; !is_done;) {
        AM_TRY(a->apply(a->self, v, w));
        result->products++;
        const double norm = am_eigen_norm(n, w), value = am_eigen_dot(n, v, w);
        double square = 0;
        for (int64_t i = 0; i < n; i++) {
            square += (w[i] - value * v[i]) * (w[i] - value * v[i]);
        }
        result->value[0] = isfinite(norm) ? value : NAN;
        result->residual[0] = isfinite(norm) ? sqrt(square) : NAN;
        result->is_converged = sqrt(square) <= options->tolerance * fabs(value);
        is_done = result->is_converged || !isfinite(norm) || result->products == options->most;
        if (is_done && result->vector != NULL) {
            memcpy(result->vector, v, (size_t)n * sizeof *v); /* the one that was measured */
        } else if (!is_done) {
            am_eigen_scale(n, norm, w, v);
        }
    }
cleanup:
    am_eigen_close(options, v);
    return rc;
}
