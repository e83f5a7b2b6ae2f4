/* QDWH: x <- x (a + b x^T x) (1 + c x^T x)^-1 with the weights that move singular values in
 * [low, 1] nearest to 1: six steps take 1e-16 there. With
 *
 *   [sqrt(c) x | 1] = r [q_1 | q_2],   x (1 + c x^T x)^-1 = q_2^T q_1 / sqrt(c),
 *
 * written for x with more columns than rows, large c loses nothing; where c <= 100, the Cholesky
 * factor of 1 + c x x^T takes less time, and loses two digits of 16. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "solver/linalg/qdwh.h"

#include <math.h>
#include "mpi/error.h"
#include "mpi/rng.h"
#include "solver/linalg/cholesky.h"
#include "solver/linalg/condition.h"
#include "solver/linalg/qr.h"

enum { STEPS = 20 };
static const double TOLERANCE = 1e-13;
static const double LOSSLESS = 100; /* c for Cholesky factors */
static const double LEAST = 1e-22;  /* what singular values of noise are not below, mostly */

/* The weights. */
typedef struct am_weights {
    double a, b, c;
} am_weights;

static am_weights weights_of(double low)
{
    const double square = low * low, d = cbrt(4 * (1 - square) / (square * square));
    const double root = sqrt(1 + d);
    const double a = root + 0.5 * sqrt(8 - 4 * d + 8 * (2 - square) / (square * root));
    const double b = (a - 1) * (a - 1) / 4;
    return (am_weights){.a = a, .b = b, .c = a + b - 1};
}

static double advance(double low, const am_weights *w)
{
    return fmin(1, low * (w->a + w->b * low * low) / (1 + w->c * low * low));
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t am_qdwh_bytes_on(const am_layout *on, int64_t m, int64_t n)
{
    const int64_t k = least(m, n), l = most(m, n), square = am_matrix_bytes_on(on, k, k);
    const int64_t by_qr = am_matrix_bytes_on(on, k, k + l) + am_qr_rows_bytes_on(on, k, k + l);
    const int64_t by_cholesky = square + am_matrix_bytes_on(on, k, l);
    return am_matrix_bytes_on(on, k, l) + most(2 * square, most(by_qr, by_cholesky));
}

/* Rows that depend on others become independent. A place has its number on any grid. */
static void add_noise(am_matrix x)
{
    const am_rng rng = am_rng_make(0, "qdwh", 0, 0, "");
    const am_matrix here = am_matrix_local(x);
    const double size = 0x1p-54 / sqrt((double)x.cols);
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(x, i);
        for (int64_t j = 0; j < here.cols; j++) {
            const int64_t place = row * x.cols + am_matrix_col(x, j);
            here.at[i * here.step + j] += size * am_rng_normal(&rng, place);
        }
    }
}

static int step_by_qr(am_arena *work, am_matrix x, const am_weights *w)
{
    const int64_t n = x.rows, m = x.cols;
    const am_matrix both = am_matrix_take_like(work, x, n, m + n);
    const am_matrix first = am_matrix_part(both, 0, 0, n, m);
    const am_matrix second = am_matrix_part(both, 0, m, n, n);
    const double root = sqrt(w->c);
    am_matrix_copy(x, first);
    am_matrix_scale(first, root);
    am_matrix_fill(second, 0);
    am_matrix_add_diagonal(1, second);
    const int rc = am_qr_rows(work, both);
    if (rc == 0) {
        am_multiply((w->a - w->b / w->c) / root, second, AM_TRANSPOSED, first, AM_AS_IS,
                    w->b / w->c, x);
    }
    return rc;
}

static int step_by_cholesky(am_arena *work, am_matrix x, const am_weights *w)
{
    const am_matrix gram = am_matrix_take_like(work, x, x.rows, x.rows);
    const am_matrix along = am_matrix_take_like(work, x, x.rows, x.cols);
    am_multiply(w->c, x, AM_AS_IS, x, AM_TRANSPOSED, 0, gram);
    am_matrix_add_diagonal(1, gram);
    int rc = am_cholesky(gram);
    AM_KEEP(am_cholesky_invert(gram));
    if (rc == 0) {
        am_multiply(1, gram, AM_AS_IS, x, AM_AS_IS, 0, along);
        am_multiply(w->a - w->b / w->c, gram, AM_TRANSPOSED, along, AM_AS_IS, w->b / w->c, x);
    }
    return rc;
}

static bool is_orthonormal(am_arena *work, am_matrix x)
{
    const am_matrix gram = am_matrix_take_like(work, x, x.rows, x.rows);
    return am_matrix_skewness(x, gram) <= TOLERANCE * sqrt((double)x.rows);
}

/* x [n,m], n <= m, |x|_2 <= 1; low: no singular value is smaller, 0: not known. */
static int iterate(am_arena *work, am_matrix x, double low)
{
    const size_t mark = am_arena_mark(work);
    if (low < LEAST) {
        add_noise(x);
        low = LEAST;
    }
    for (int i = 0; i < STEPS; i++) {
        if (1 - low < 1e-15) {
            const bool is_done = is_orthonormal(work, x);
            am_arena_release(work, mark);
            if (is_done) {
                return 0;
            }
        }
        const am_weights w = weights_of(low);
        const int rc = w.c > LOSSLESS ? step_by_qr(work, x, &w) : step_by_cholesky(work, x, &w);
        am_arena_release(work, mark);
        if (rc != 0) {
            return rc;
        }
        low = advance(low, &w);
    }
    return am_fail(AM_E_NUMERIC, "polar factor: no convergence");
}

int am_qdwh(am_arena *work, am_matrix a)
{
    const size_t mark = am_arena_mark(work);
    const int64_t k = least(a.rows, a.cols);
    const bool is_tall = a.rows > a.cols;
    if (k == 0) {
        return 0;
    }
    const am_matrix x = am_matrix_take_like(work, a, k, most(a.rows, a.cols));
    const size_t after = am_arena_mark(work);
    double low = 0;
    int exponent = 0;
    (is_tall ? am_matrix_transpose : am_matrix_copy)(a, x);
    if (am_matrix_normalise(x, &exponent)) {
        const am_matrix gram = am_matrix_take_like(work, a, k, k);
        am_condition_scale(x, gram, am_matrix_take_like(work, a, k, k), &low);
        am_arena_release(work, after);
    }
    const int rc = iterate(work, x, low);
    if (rc == 0) {
        (is_tall ? am_matrix_transpose : am_matrix_copy)(x, a);
    }
    am_arena_release(work, mark);
    return rc;
}
