/* Polar factors by products alone, or by singular values.
 *
 *   x <- a / bound of |a|_2;   x <- rho x (3 I - rho^2 x^T x) / 2
 *
 * sends every singular value in (0, 1] towards 1. rho stretches [low, 1], in which they lie, as far
 * as keeps it below 1 (Chen and Chow 2014, "A stable scaling of Newton-Schulz"): small ones grow
 * by 2.6 a step, not by 1.5. The number of steps is known before the first one (condition.h). The
 * Gram matrix decides and never makes the result: a singular value that it cannot see is one that
 * takes too many steps. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "solver/linalg/polar.h"

#include <math.h>
#include "mpi/error.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/condition.h"
#include "solver/linalg/qdwh.h"
#include "solver/linalg/svd.h"

enum {
    STEPS = 9,      /* of two products: they take less time than a decomposition */
    STEPS_MORE = 60 /* where nothing else is allowed */
};
static const double TOLERANCE = 1e-13;
static const double SEEN = 1e-7; /* a bound of singular values that a Gram matrix is good for */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t iterate_bytes(const am_layout *on, int64_t m, int64_t n)
{
    const int64_t k = least(m, n);
    return 2 * am_matrix_bytes_on(on, m, n) + 2 * am_matrix_bytes_on(on, k, k);
}

/* svd: what the decomposition needs besides. */
static int64_t bytes_of(const am_layout *on, int64_t m, int64_t n, int64_t svd)
{
    const int64_t k = least(m, n);
    const int64_t by_svd =
        am_matrix_bytes_on(on, m, k) + am_matrix_bytes_on(on, k, n) + am_matrix_bytes(1, k) + svd;
    return most(most(iterate_bytes(on, m, n), by_svd), on != NULL ? am_qdwh_bytes_on(on, m, n) : 0);
}

int64_t am_polar_bytes_on(const am_layout *on, int64_t m, int64_t n)
{
    return bytes_of(on, m, n, am_svd_bytes_on(on, m, n, least(m, n)));
}

int64_t am_polar_bytes_within_on(const am_layout *on, int64_t m, int64_t n)
{
    return on != NULL ? am_polar_bytes_on(on, m, n)
                      : bytes_of(NULL, m, n, am_svd_bytes_within(m, n));
}

int64_t am_polar_bytes(int64_t m, int64_t n)
{
    return am_polar_bytes_on(NULL, m, n);
}

static int by_svd(am_arena *work, am_matrix a, double smallest)
{
    const int64_t k = least(a.rows, a.cols);
    const am_matrix u = am_matrix_take_like(work, a, a.rows, k);
    const am_matrix vt = am_matrix_take_like(work, a, k, a.cols);
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

/* gram = x x^T, or x^T x where that is smaller. Returns |1 - gram|_F / sqrt(k). */
static double measure(am_matrix x, am_matrix gram)
{
    return am_matrix_skewness(x, gram) / sqrt((double)gram.rows);
}

/* next = rho x (3 I - rho^2 gram) / 2; gram is changed. */
static void step(am_matrix x, am_matrix gram, double rho, am_matrix next)
{
    const am_matrix here = am_matrix_local(gram);
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(gram, i);
        for (int64_t j = 0; j < here.cols; j++) {
            double *at = &here.at[i * here.step + j];
            *at = 0.5 * rho * ((am_matrix_col(gram, j) == row ? 3 : 0) - rho * rho * *at);
        }
    }
    if (x.rows > x.cols) {
        am_multiply(1, x, AM_AS_IS, gram, AM_AS_IS, 0, next);
    } else {
        am_multiply(1, gram, AM_AS_IS, x, AM_AS_IS, 0, next);
    }
}

static double stretch(double low)
{
    return low < 0.9 ? sqrt(3 / (1 + low + low * low)) : 1;
}

static double advance(double low)
{
    const double rho = stretch(low);
    return fmin(1, 0.5 * rho * low * (3 - rho * rho * low * low));
}

/* Steps until singular values in [low, 1] are 1 to rounding. */
static int count_steps(double low)
{
    int steps = 0;
    while (steps <= STEPS_MORE && 1 - low > 1e-8) {
        low = advance(low);
        steps++;
    }
    return steps + 1;
}

/* Whether x [m,n], with singular values in [low, 1], was turned into its factor. *spare: the same
 * size; the two change places. */
static bool iterate(am_matrix *x, am_matrix *spare, am_matrix gram, double low, int steps)
{
    for (int i = 0; i < steps; i++) {
        if (measure(*x, gram) <= TOLERANCE) {
            return true;
        }
        step(*x, gram, stretch(low), *spare);
        low = advance(low);
        const am_matrix made = *spare;
        *spare = *x;
        *x = made;
    }
    return measure(*x, gram) <= TOLERANCE;
}

/* *low: as am_condition_scale has it. */
static bool by_iteration(am_arena *work, am_matrix a, int steps, double *low)
{
    const int64_t k = least(a.rows, a.cols);
    am_matrix x = am_matrix_take_like(work, a, a.rows, a.cols);
    am_matrix spare = am_matrix_take_like(work, a, a.rows, a.cols);
    const am_matrix gram = am_matrix_take_like(work, a, k, k);
    const am_matrix square = am_matrix_take_like(work, a, k, k);
    int exponent = 0;
    am_matrix_copy(a, x);
    if (k == 0 || !am_matrix_normalise(x, &exponent)) {
        return false;
    }
    am_condition_scale(x, gram, square, low);
    if (steps < STEPS_MORE && count_steps(*low) > steps) {
        return false;
    }
    const bool is_done = iterate(&x, &spare, gram, fmax(*low, 1e-8), steps);
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
    double low = 0;
    if (rc == 0 && way != AM_POLAR_SVD) {
        is_done = by_iteration(work, a, way == AM_POLAR_ITERATE ? STEPS_MORE : STEPS, &low);
        am_arena_release(work, mark);
    }
    if (is_done) {
        return rc;
    }
    if (way == AM_POLAR_ITERATE) {
        return am_fail(AM_E_NUMERIC, "polar factor: the matrix has not full rank");
    }
    /* On a grid singular values are by QDWH, too: where all of them count, it is enough. */
    const bool has_full_rank = a.grid != NULL && low > fmax(smallest, SEEN);
    rc = has_full_rank ? am_qdwh(work, a) : by_svd(work, a, smallest);
    am_arena_release(work, mark);
    return rc;
}
