/* Polar factors by products alone, or by singular values.
 *
 *   x <- a / bound of |a|_2;   x <- rho x (3 I - rho^2 x^T x) / 2
 *
 * sends every singular value in (0, 1] towards 1. rho stretches the interval [low, 1], in which
 * they are supposed to lie, as far as keeps it below 1 (Chen and Chow 2014, "A stable scaling of
 * Newton-Schulz"): small ones then grow by 2.6 a step, not by 1.5. `low` needs to be no bound: what
 * lies below grows as fast and takes more steps.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/polar.h"

#include <math.h>
#include "mpi/error.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/svd.h"

enum {
    STEPS = 18,     /* of two products: about the time of a decomposition of a square matrix */
    STEPS_MORE = 60 /* where nothing else is allowed: singular values down to 1e-20 */
};
static const double LOW = 1e-3, TOLERANCE = 1e-13;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t iterate_bytes(int64_t m, int64_t n)
{
    const int64_t k = least(m, n);
    return 2 * am_matrix_bytes(m, n) + am_matrix_bytes(k, k) + am_matrix_bytes(1, most(m, n));
}

static int64_t svd_bytes(int64_t m, int64_t n)
{
    const int64_t k = least(m, n);
    return am_matrix_bytes(m, k) + am_matrix_bytes(k, n) + am_matrix_bytes(1, k) +
           am_svd_bytes(m, n);
}

int64_t am_polar_bytes(int64_t m, int64_t n)
{
    return most(iterate_bytes(m, n), svd_bytes(m, n));
}

static int by_svd(am_arena *work, am_matrix a, double smallest)
{
    const int64_t k = least(a.rows, a.cols);
    const am_matrix u = am_matrix_take(work, a.rows, k), vt = am_matrix_take(work, k, a.cols);
    double *s = am_matrix_take(work, 1, k).at;
    const int rc = am_svd(work, a, u, s, vt);
    if (rc == 0) {
        int64_t rank = am_svd_rank(a.rows, a.cols, s);
        while (rank > 0 && s[rank - 1] <= smallest * s[0]) {
            rank--;
        }
        am_multiply(1, am_matrix_part(u, 0, 0, a.rows, rank), AM_AS_IS,
                    am_matrix_part(vt, 0, 0, rank, a.cols), AM_AS_IS, 0, a);
    }
    return rc;
}

/* A bound of the largest singular value: sqrt(|a|_1 |a|_inf), or |a|_F if that is less. */
static double bound_norm(am_matrix a, double *columns)
{
    double rows = 0, widest = 0;
    for (int64_t j = 0; j < a.cols; j++) {
        columns[j] = 0;
    }
    for (int64_t i = 0; i < a.rows; i++) {
        double sum = 0;
        for (int64_t j = 0; j < a.cols; j++) {
            const double x = fabs(a.at[i * a.step + j]);
            sum += x;
            columns[j] += x;
        }
        rows = fmax(rows, sum);
    }
    for (int64_t j = 0; j < a.cols; j++) {
        widest = fmax(widest, columns[j]);
    }
    return fmin(sqrt(rows) * sqrt(widest), am_matrix_norm(a));
}

/* gram = x^T x, or x x^T where that is smaller. Returns |I - gram|_F / sqrt(k). */
static double measure(am_matrix x, am_matrix gram)
{
    const bool is_tall = x.rows >= x.cols;
    double sum = 0;
    am_multiply(1, x, is_tall ? AM_TRANSPOSED : AM_AS_IS, x, is_tall ? AM_AS_IS : AM_TRANSPOSED, 0,
                gram);
    for (int64_t i = 0; i < gram.rows; i++) {
        for (int64_t j = 0; j < gram.cols; j++) {
            const double off = gram.at[i * gram.step + j] - (i == j);
            sum += off * off;
        }
    }
    return sqrt(sum / (double)gram.rows);
}

/* next = rho x (3 I - rho^2 gram) / 2; gram is changed. */
static void step(am_matrix x, am_matrix gram, double rho, am_matrix next)
{
    for (int64_t i = 0; i < gram.rows; i++) {
        for (int64_t j = 0; j < gram.cols; j++) {
            double *at = &gram.at[i * gram.step + j];
            *at = 0.5 * rho * ((i == j ? 3 : 0) - rho * rho * *at);
        }
    }
    if (x.rows >= x.cols) {
        am_multiply(1, x, AM_AS_IS, gram, AM_AS_IS, 0, next);
    } else {
        am_multiply(1, gram, AM_AS_IS, x, AM_AS_IS, 0, next);
    }
}

/* Whether x [m,n], of largest singular value at most 1, was turned into its factor. *spare: the
 * same size; the two change places. */
static bool iterate(am_matrix *x, am_matrix *spare, am_matrix gram, int steps)
{
    double low = LOW;
    for (int i = 0; i < steps; i++) {
        const double off = measure(*x, gram);
        if (off <= TOLERANCE) {
            return true;
        }
        const double rho = low < 0.9 ? sqrt(3 / (1 + low + low * low)) : 1;
        step(*x, gram, rho, *spare);
        low = fmin(1, 0.5 * rho * low * (3 - rho * rho * low * low));
        const am_matrix made = *spare;
        *spare = *x;
        *x = made;
    }
    return measure(*x, gram) <= TOLERANCE;
}

static bool by_iteration(am_arena *work, am_matrix a, int steps)
{
    const int64_t k = least(a.rows, a.cols);
    am_matrix x = am_matrix_take(work, a.rows, a.cols);
    am_matrix spare = am_matrix_take(work, a.rows, a.cols);
    const am_matrix gram = am_matrix_take(work, k, k);
    const double bound = bound_norm(a, am_matrix_take(work, 1, most(a.rows, a.cols)).at);
    int exponent = 0;
    (void)frexp(bound, &exponent);
    if (k == 0 || bound == 0) {
        return false;
    }
    for (int64_t i = 0; i < a.rows; i++) { /* in two steps: no overflow, no denormal factor */
        for (int64_t j = 0; j < a.cols; j++) {
            x.at[i * x.step + j] = ldexp(a.at[i * a.step + j], -exponent) / ldexp(bound, -exponent);
        }
    }
    const bool is_done = iterate(&x, &spare, gram, steps);
    if (is_done) {
        am_matrix_copy(x, a);
    }
    return is_done;
}

int am_polar(am_arena *work, am_matrix a, double smallest, am_polar_way way)
{
    const size_t mark = am_arena_mark(work);
    int rc = am_lapack_check("polar factor", a);
    bool is_done = rc != 0;
    if (rc == 0 && way != AM_POLAR_SVD) {
        is_done = by_iteration(work, a, way == AM_POLAR_ITERATE ? STEPS_MORE : STEPS);
        am_arena_release(work, mark);
    }
    if (!is_done) {
        rc = way == AM_POLAR_ITERATE
                 ? am_fail(AM_E_NUMERIC, "polar factor: the matrix has not full rank")
                 : by_svd(work, a, smallest);
    }
    am_arena_release(work, mark);
    return rc;
}
