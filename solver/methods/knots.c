/* KnOTS: task vectors in the left singular basis that they share, merged there as TIES does.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include "mpi/error.h"
#include "solver/linalg/qr.h"
#include "solver/linalg/svd.h"
#include "solver/merge/spectral.h"

enum { DENSITY = AM_SPECTRAL_OWN, ELECT, SMALLEST };

static const am_method_param params[] = {
    AM_SPECTRAL_PARAMS(1),
    [DENSITY] = {.key = "density",
                 .fallback = 0.2,
                 .low = 0,
                 .high = 1,
                 .help = "share of each model's coefficients that stay, the largest"},
    [ELECT] = {.key = "elect",
               .is_bool = true,
               .fallback = 1,
               .help =
                   "TIES: the mean of what agrees with the elected sign; false: the sum of all"},
    [SMALLEST] = {.key = "smallest",
                  .fallback = 1e-5,
                  .low = 0,
                  .high = 1e30,
                  .help = "singular values up to this are dropped"},
    {0}};

static int64_t narrow(const am_spectral_size *s)
{
    return s->m < s->models * s->n ? s->m : s->models * s->n;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Directions of all task vectors that are products. */
static int64_t sum_ranks(const am_unit *unit)
{
    int64_t sum = 0;
    for (int t = 0; t < unit->models; t++) {
        sum += unit->factor_rank[t];
    }
    return sum;
}

/* Of decompose_products, q directions together. */
static int64_t product_bytes(const am_unit *unit, const am_spectral_size *s, int64_t q)
{
    int64_t steps = most(am_qr_bytes(s->m, q), am_svd_bytes(q, q));
    for (int t = 0; t < unit->models; t++) {
        const int64_t r = unit->factor_rank[t];
        steps =
            most(steps, am_matrix_bytes(s->n, r) + am_matrix_bytes(r, r) + am_qr_bytes(s->n, r));
    }
    return 2 * am_matrix_bytes(s->m, q) + am_matrix_bytes(s->n, q) + 4 * am_matrix_bytes(q, q) +
           steps;
}

static int64_t dense_bytes(const am_unit *unit)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    const int64_t all = s.models * s.n;
    const int64_t k = unit->factor_rank != NULL ? sum_ranks(unit) : narrow(&s);
    return am_directions_bytes(NULL, s.m, all, k) + am_matrix_bytes(k, s.n) +
           (unit->factor_rank != NULL ? product_bytes(unit, &s, k)
                                      : am_matrix_bytes(s.m, all) + am_svd_bytes(s.m, all));
}

static void largest(const am_unit *unit, int64_t *rows, int64_t *cols)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    *rows = s.m;
    *cols = s.models * s.n;
}

/* The take-th largest of x [n], 1 <= take <= n; x is reordered (Hoare's selection). */
static double select_largest(double *x, int64_t n, int64_t take)
{
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        const double pivot = x[lo + (hi - lo) / 2];
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (x[i] > pivot) {
                i++;
            }
            while (x[j] < pivot) {
                j--;
            }
            if (i <= j) {
                const double swapped = x[i];
                x[i++] = x[j];
                x[j--] = swapped;
            }
        }
        if (take - 1 <= j) {
            hi = j;
        } else if (take - 1 >= i) {
            lo = i;
        } else {
            break;
        }
    }
    return x[take - 1];
}

/* Coefficients that are rounding of the largest singular value are 0, and agree with no sign. */
static void clear_rounding(am_matrix blocks, double least)
{
    for (int64_t i = 0; i < blocks.rows; i++) {
        for (int64_t j = 0; j < blocks.cols; j++) {
            double *x = &blocks.at[i * blocks.step + j];
            *x = fabs(*x) > least ? *x : 0;
        }
    }
}

/* Keep the density n largest magnitudes of a block, one at least; ties by index. */
static void trim(am_matrix block, double density, double *room)
{
    const int64_t n = block.rows * block.cols, take = am_spectral_directions(density, n);
    if (density >= 1 || n == 0) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        room[i] = fabs(block.at[i / block.cols * block.step + i % block.cols]);
    }
    const double threshold = select_largest(room, n, take);
    int64_t above = 0, ties = 0;
    for (int64_t i = 0; i < n; i++) {
        above += fabs(block.at[i / block.cols * block.step + i % block.cols]) > threshold;
    }
    for (int64_t i = 0; i < n; i++) {
        double *x = &block.at[i / block.cols * block.step + i % block.cols];
        const bool is_tie = fabs(*x) == threshold;
        *x = fabs(*x) > threshold || (is_tie && ties < take - above) ? *x : 0;
        ties += is_tie;
    }
}

/* Mean of those of x_t = blocks[t * stride] that have the sign of their sum, or the sum. */
static double consensus(const double *blocks, int models, int64_t stride, bool elects)
{
    double sum = 0, agreeing = 0;
    int n = 0;
    for (int t = 0; t < models; t++) {
        sum += blocks[t * stride];
    }
    for (int t = 0; t < models; t++) {
        const double x = blocks[t * stride];
        if (x != 0 && (x > 0) == (sum >= 0)) {
            agreeing += x;
            n++;
        }
    }
    return !elects ? sum : n > 0 ? agreeing / n : 0;
}

/* d = singular values and vectors of [delta_1 .. delta_T]. */
static int decompose(const am_dense *matrix, const am_spectral_size *s, const am_directions *d)
{
    const am_matrix side = am_matrix_take(matrix->work, s->m, s->models * s->n);
    for (int t = 0; t < s->models; t++) {
        am_matrix_copy(matrix->delta[t], am_matrix_part(side, 0, t * s->n, s->m, s->n));
    }
    return am_svd(matrix->work, side, d->left, d->value, d->right);
}

/* right^T = basis triangle: basis [n,r] orthonormal, and small = left triangle^T. */
static int turn_right(am_arena *work, am_matrix right, am_matrix basis, am_matrix left,
                      am_matrix small)
{
    const size_t mark = am_arena_mark(work);
    const am_matrix turned = am_matrix_take(work, right.cols, right.rows);
    const am_matrix triangle = am_matrix_take(work, right.rows, right.rows);
    am_matrix_transpose(right, turned);
    const int rc = am_qr(work, turned, basis, triangle, NULL);
    if (rc == 0) {
        am_multiply(1, left, AM_AS_IS, triangle, AM_TRANSPOSED, 0, small);
    }
    am_arena_release(work, mark);
    return rc;
}

/* The same of delta_t = B_t A_t, which is never formed: with [B_1 .. B_T] = Q R and A_t^T = Q_t
 * R_t, [delta_1 .. delta_T] = Q [R^1 R_1^T .. R^T R_T^T] diag(Q_1^T .. Q_T^T), R^t the columns of R
 * that belong to B_t; and the matrix in between is small. */
static int decompose_products(const am_dense *matrix, const am_spectral_size *s, int64_t q,
                              const am_directions *d)
{
    am_arena *work = matrix->work;
    const am_matrix side = am_matrix_take(work, s->m, q), basis = am_matrix_take(work, s->m, q);
    const am_matrix bases = am_matrix_take(work, s->n, q), r = am_matrix_take(work, q, q);
    const am_matrix small = am_matrix_take(work, q, q), u = am_matrix_take(work, q, q);
    const am_matrix vt = am_matrix_take(work, q, q);
    int64_t at = 0;
    for (int t = 0; t < s->models; at += matrix->left[t++].cols) {
        am_matrix_copy(matrix->left[t], am_matrix_part(side, 0, at, s->m, matrix->left[t].cols));
    }
    int rc = am_qr(work, side, basis, r, NULL);
    at = 0;
    for (int t = 0; rc == 0 && t < s->models; at += matrix->left[t++].cols) {
        const int64_t n = matrix->left[t].cols;
        rc = turn_right(work, matrix->right[t], am_matrix_part(bases, 0, at, s->n, n),
                        am_matrix_part(r, 0, at, q, n), am_matrix_part(small, 0, at, q, n));
    }
    AM_KEEP(am_svd(work, small, u, d->value, vt));
    if (rc != 0) {
        return rc;
    }
    am_multiply(1, basis, AM_AS_IS, u, AM_AS_IS, 0, d->left);
    at = 0;
    for (int t = 0; t < s->models; at += matrix->left[t++].cols) {
        const int64_t n = matrix->left[t].cols;
        am_multiply(1, am_matrix_part(vt, 0, at, q, n), AM_AS_IS,
                    am_matrix_part(bases, 0, at, s->n, n), AM_TRANSPOSED, 0,
                    am_matrix_part(d->right, 0, t * s->n, q, s->n));
    }
    return 0;
}

/* [delta_1 .. delta_T] = U S [V_1 .. V_T]^T: out = lambda U merge(S V_1^T, .., S V_T^T). */
static int merge_dense(const am_dense *matrix)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    const double *param = matrix->unit->param;
    const bool is_factored = matrix->unit->factor_rank != NULL;
    const int64_t all = s.models * s.n, k = is_factored ? sum_ranks(matrix->unit) : narrow(&s);
    const am_directions d = am_directions_take(matrix->work, matrix->out, s.m, all, k);
    const am_matrix room = am_matrix_take(matrix->work, k, s.n);
    const int rc = is_factored ? decompose_products(matrix, &s, k, &d) : decompose(matrix, &s, &d);
    if (rc != 0) {
        return rc;
    }
    const double rounding = k > 0 ? (double)most(s.m, all) * DBL_EPSILON * d.value[0] : 0;
    int64_t rank = 0;
    while (rank < k && d.value[rank] > rounding && d.value[rank] > param[SMALLEST]) {
        rank++;
    }
    am_matrix_scale_rows(am_matrix_part(d.right, 0, 0, rank, all), d.value);
    clear_rounding(am_matrix_part(d.right, 0, 0, rank, all), rounding);
    for (int t = 0; t < s.models; t++) {
        trim(am_matrix_part(d.right, 0, t * s.n, rank, s.n), param[DENSITY], room.at);
    }
    const am_matrix merged = am_matrix_part(room, 0, 0, rank, s.n);
    for (int64_t i = 0; i < rank * s.n; i++) {
        const double *first = d.right.at + i / s.n * all + i % s.n;
        merged.at[i] = consensus(first, s.models, s.n, param[ELECT] != 0);
    }
    am_multiply(1, am_matrix_part(d.left, 0, 0, s.m, rank), AM_AS_IS, merged, AM_AS_IS, 0,
                matrix->out);
    am_spectral_scale(matrix, matrix->out);
    return 0;
}

const am_method am_method_knots = {
    .name = "knots",
    .summary = "task vectors in a singular basis that they share, merged there as ties (KnOTS)",
    .source = "Stoica et al. 2024 (arXiv:2410.19735): U S V^T = [delta_1 .. delta_T], TIES on the "
              "blocks of S V^T, U in front",
    AM_SPECTRAL_FIELDS,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .dense_bytes = dense_bytes,
    .largest = largest,
    .takes_factors = true,
    .merge_dense = merge_dense,
};
