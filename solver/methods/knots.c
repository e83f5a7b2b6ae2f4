/* KnOTS: task vectors in the left singular basis that they share, merged there as TIES does.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <float.h>
#include <math.h>
#include <stddef.h>
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

static int64_t dense_bytes(const am_unit *unit)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    const int64_t all = s.models * s.n, k = narrow(&s);
    return am_matrix_bytes(s.m, all) + am_directions_bytes(NULL, s.m, all, k) +
           am_matrix_bytes(k, s.n) + am_svd_bytes(s.m, all);
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

/* [delta_1 .. delta_T] = U S [V_1 .. V_T]^T: out = lambda U merge(S V_1^T, .., S V_T^T). */
static int merge_dense(const am_dense *matrix)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    const double *param = matrix->unit->param;
    const int64_t all = s.models * s.n, k = narrow(&s);
    const am_matrix side = am_matrix_take(matrix->work, s.m, all);
    const am_directions d = am_directions_take(matrix->work, matrix->out, s.m, all, k);
    const am_matrix room = am_matrix_take(matrix->work, k, s.n);
    int64_t rank = 0;
    for (int t = 0; t < s.models; t++) {
        am_matrix_copy(matrix->delta[t], am_matrix_part(side, 0, t * s.n, s.m, s.n));
    }
    const int rc = am_svd(matrix->work, side, d.left, d.value, d.right);
    if (rc != 0) {
        return rc;
    }
    while (rank < am_svd_rank(s.m, all, d.value) && d.value[rank] > param[SMALLEST]) {
        rank++;
    }
    am_matrix_scale_rows(am_matrix_part(d.right, 0, 0, rank, all), d.value);
    clear_rounding(am_matrix_part(d.right, 0, 0, rank, all),
                   rank > 0 ? (double)(s.m > all ? s.m : all) * DBL_EPSILON * d.value[0] : 0);
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
    .merge_dense = merge_dense,
};
