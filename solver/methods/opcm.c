/* OPCM: one task vector after the other, each without what lies along the singular directions of
 * those before it. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/linalg/svd.h"
#include "solver/merge/spectral.h"

enum { ALPHA = AM_SPECTRAL_OWN, RESCALE };

static const am_method_param params[] = {
    AM_SPECTRAL_PARAMS(1),
    [ALPHA] = {.key = "alpha",
               .fallback = 0.5,
               .low = 0,
               .high = 1,
               .help = "share of the sum of singular values up to which directions are off limits"},
    [RESCALE] = {.key = "rescale",
                 .is_bool = true,
                 .fallback = 1,
                 .help = "bring the result to the mean length of the task vectors; false: their "
                         "sum"},
    {0}};

static int64_t dense_bytes(const am_unit *unit)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    return am_directions_bytes(s.on, s.m, s.n, s.k) + 2 * am_matrix_bytes_on(s.on, s.m, s.n) +
           am_matrix_bytes_on(s.on, s.m, s.k) + am_matrix_bytes_on(s.on, s.k, s.k) +
           am_svd_bytes_on(s.on, s.m, s.n, s.k);
}

/* Leading directions of rank that are off limits: up to the first at which the running sum exceeds
 * alpha. At alpha 1 all are (in the published code, none: argmax of nothing). */
static int64_t forbidden(const double *value, int64_t rank, double alpha)
{
    double total = 0, sum = 0;
    int64_t split = 0;
    for (int64_t i = 0; i < rank; i++) {
        total += value[i];
    }
    while (split < rank && (sum += value[split]) <= alpha * total) {
        split++;
    }
    return split;
}

/* Keep of along [k,k] what is taken away: the leading square and the diagonal of rank. */
static void select_along(am_matrix along, int64_t split, int64_t rank)
{
    const am_matrix here = am_matrix_local(along);
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(along, i);
        for (int64_t j = 0; j < here.cols; j++) {
            const int64_t col = am_matrix_col(along, j);
            const bool is_taken = (row < split && col < split) || (row == col && row < rank);
            here.at[i * here.step + j] *= is_taken;
        }
    }
}

typedef struct am_opcm_room {
    am_directions d;
    am_matrix copy, product, left, along;
} am_opcm_room;

/* sum += delta - U (what is taken of U^T delta V) V^T, U and V those of the sum. */
static int add_next(const am_dense *matrix, am_opcm_room *room, am_matrix delta, am_matrix sum)
{
    const am_directions *d = &room->d;
    am_matrix_copy(sum, room->copy);
    const int rc = am_svd(matrix->work, room->copy, d->left, d->value, d->right);
    if (rc != 0) {
        return rc;
    }
    const int64_t rank = am_svd_rank(sum.rows, sum.cols, d->value);
    am_multiply(1, delta, AM_AS_IS, d->right, AM_TRANSPOSED, 0, room->left);
    am_multiply(1, d->left, AM_TRANSPOSED, room->left, AM_AS_IS, 0, room->along);
    select_along(room->along, forbidden(d->value, rank, matrix->unit->param[ALPHA]), rank);
    am_multiply(1, d->left, AM_AS_IS, room->along, AM_AS_IS, 0, room->left);
    am_multiply(1, room->left, AM_AS_IS, d->right, AM_AS_IS, 0, room->product);
    am_matrix_add(1, delta, sum);
    am_matrix_add(-1, room->product, sum);
    return 0;
}

/* The published scale of every step only multiplies the sum, whose directions it leaves alone; so
 * it is taken once, at the end: |out| = mean_t |delta_t|. Published lengths are those of whole
 * models. */
static int merge_dense(const am_dense *matrix)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    const am_matrix like = matrix->out;
    am_opcm_room room = {.d = am_directions_take(matrix->work, like, s.m, s.n, s.k),
                         .copy = am_matrix_take_like(matrix->work, like, s.m, s.n),
                         .product = am_matrix_take_like(matrix->work, like, s.m, s.n),
                         .left = am_matrix_take_like(matrix->work, like, s.m, s.k),
                         .along = am_matrix_take_like(matrix->work, like, s.k, s.k)};
    double lengths = 0;
    int rc = 0;
    am_matrix_copy(matrix->delta[0], matrix->out);
    for (int t = 0; rc == 0 && t < s.models; t++) {
        lengths += am_matrix_norm(matrix->delta[t]);
        rc = t > 0 ? add_next(matrix, &room, matrix->delta[t], matrix->out) : 0;
    }
    const double length = am_matrix_norm(matrix->out);
    if (rc == 0 && matrix->unit->param[RESCALE] != 0 && length > 0) {
        am_matrix_scale(matrix->out, lengths / s.models / length);
    }
    if (rc == 0) {
        am_spectral_scale(matrix, matrix->out);
    }
    return rc;
}

const am_method am_method_opcm = {
    .name = "opcm",
    .summary = "one task vector after the other, off the singular directions of those before it",
    .source =
        "Tang et al. 2025 (arXiv:2501.09522), OPCM: delta_t without <delta_t, u_i v_j> for i, j "
        "up to alpha of the sum of singular values, and for i = j",
    AM_SPECTRAL_FIELDS,
    .properties = AM_PROP_EQUAL_IDENTITY,
    .params = params,
    .on_grid = true,
    .dense_bytes = dense_bytes,
    .merge_dense = merge_dense,
};
