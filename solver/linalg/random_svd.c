/* Randomised truncated singular values: see random_svd.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/random_svd.h"

#include <math.h>
#include <string.h>
#include "mpi/error.h"
#include "solver/linalg/checked.h"
#include "solver/linalg/qr.h"
#include "solver/linalg/svd.h"

enum { MORE = 10 };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Columns of the range. */
static int64_t width_of(int64_t m, int64_t n, int64_t r)
{
    return least(r + MORE, least(m, n));
}

int64_t am_random_svd_bytes(int64_t m, int64_t n, int64_t r)
{
    const int64_t w = width_of(m, n, r);
    const int64_t range =
        2 * am_matrix_bytes(m, w) + 2 * am_matrix_bytes(n, w) + 2 * am_matrix_bytes(w, w);
    const int64_t small = am_matrix_bytes(1, w) + am_matrix_bytes(w, n);
    const int64_t parts =
        most(most(am_qr_bytes(m, w), am_qr_bytes(n, w)), am_svd_bytes_on(NULL, w, n, r));
    return range + small + most(parts, am_matrix_bytes(m, n));
}

/* left: an orthonormal basis of what a maps the random directions to. */
static int find_range(am_arena *work, am_matrix a, int power, const am_rng *rng, am_matrix left)
{
    const int64_t w = left.cols;
    const am_matrix raw = am_matrix_take(work, a.rows, w), right = am_matrix_take(work, a.cols, w);
    const am_matrix turned = am_matrix_take(work, a.cols, w), r = am_matrix_take(work, w, w);
    int rc = 0;
    for (int64_t i = 0; i < a.cols * w; i++) {
        right.at[i] = am_rng_normal(rng, i);
    }
    am_multiply(1, a, AM_AS_IS, right, AM_AS_IS, 0, raw);
    rc = am_qr(work, raw, left, r, NULL);
    for (int p = 0; rc == 0 && p < power; p++) {
        am_multiply(1, a, AM_TRANSPOSED, left, AM_AS_IS, 0, turned);
        rc = am_qr(work, turned, right, r, NULL);
        if (rc == 0) {
            am_multiply(1, a, AM_AS_IS, right, AM_AS_IS, 0, raw);
            rc = am_qr(work, raw, left, r, NULL);
        }
    }
    return rc;
}

/* Singular values of left^T a, brought back. */
static int decompose(am_arena *work, am_matrix a, am_matrix left, am_matrix u, double *s,
                     am_matrix vt)
{
    const int64_t w = left.cols, r = u.cols;
    const am_matrix small = am_matrix_take(work, w, a.cols), inner = am_matrix_take(work, w, r);
    double *all = am_matrix_take(work, 1, w).at;
    am_multiply(1, left, AM_TRANSPOSED, a, AM_AS_IS, 0, small);
    const int rc = am_svd(work, small, inner, all, vt);
    if (rc == 0) {
        memcpy(s, all, (size_t)r * sizeof *s);
        am_multiply(1, left, AM_AS_IS, inner, AM_AS_IS, 0, u);
    }
    return rc;
}

static double measure(am_arena *work, am_matrix a, am_matrix u, const double *s, am_matrix vt)
{
    const am_matrix rest = am_matrix_take(work, a.rows, a.cols);
    am_matrix_copy(a, rest);
    for (int64_t i = 0; i < vt.rows; i++) { /* u diag(s) vt, without room for a product */
        const am_matrix row = am_matrix_part(vt, i, 0, 1, vt.cols);
        am_multiply(-s[i], am_matrix_part(u, 0, i, u.rows, 1), AM_AS_IS, row, AM_AS_IS, 1, rest);
    }
    return am_matrix_norm(rest);
}

int am_random_svd(am_arena *work, am_matrix a, int64_t r, int power, const am_rng *rng, am_matrix u,
                  double *s, am_matrix vt, double *error)
{
    const size_t mark = am_arena_mark(work);
    const int64_t w = width_of(a.rows, a.cols, r);
    AM_ASSERT(r <= w && u.rows == a.rows && u.cols == r && vt.rows == r && vt.cols == a.cols);
    int rc = am_lapack_check("leading singular values", a);
    double left_out = 0;
    if (rc == 0 && w > 0) {
        const am_matrix left = am_matrix_take(work, a.rows, w);
        const size_t after = am_arena_mark(work);
        rc = find_range(work, a, power, rng, left);
        am_arena_release(work, after);
        AM_KEEP(decompose(work, a, left, u, s, vt));
        am_arena_release(work, mark);
        left_out = rc == 0 && error != NULL ? measure(work, a, u, s, vt) : 0;
    }
    if (error != NULL) {
        *error = left_out;
    }
    am_arena_release(work, mark);
    return rc;
}
