/* Subspace boosting: the sum of the task vectors, its weak directions raised to where its leading
 * subspace ends. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/spectral.h"

enum { BETA = AM_SPECTRAL_OWN };

static const am_method_param params[] = {
    AM_SPECTRAL_PARAMS(1),
    [BETA] = {.key = "beta",
              .fallback = 0.01,
              .low = 0,
              .high = 1,
              .help = "share of the sum of singular values at which the leading subspace ends"},
    {0}};

static int64_t dense_bytes(const am_unit *unit)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    return am_directions_bytes(s.on, s.m, s.n, s.k) + am_directions_add_bytes(s.on, s.m, s.n, s.k);
}

/* Singular values below the first one at which the running sum reaches beta of all become it. */
static void boost(am_directions *d, double beta)
{
    double total = 0, sum = 0;
    int64_t cut = 0;
    for (int64_t i = 0; i < d->count; i++) {
        total += d->value[i];
    }
    while (cut < d->count && (sum += d->value[cut]) < beta * total && cut + 1 < d->count) {
        cut++;
    }
    for (int64_t i = cut; i < d->count; i++) {
        d->value[i] = d->value[cut];
    }
}

/* sum_t delta_t = U S V^T: out = lambda U max(S, S[cut]) V^T. */
static int merge_dense(const am_dense *matrix)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    am_directions d = am_directions_take(matrix->work, matrix->out, s.m, s.n, s.k);
    am_spectral_sum(matrix, matrix->out);
    const int rc = am_directions_add(matrix->work, matrix->out, 0, s.k, &d);
    if (rc == 0) {
        boost(&d, matrix->unit->param[BETA]);
        am_directions_multiply(&d, matrix->out);
        am_spectral_scale(matrix, matrix->out);
    }
    return rc;
}

const am_method am_method_subspace_boost = {
    .name = "subspace_boost",
    .summary = "sum of the task vectors, weak directions raised to the end of the leading subspace",
    .source =
        "Skorobogat et al. 2025 (arXiv:2506.16506), on task arithmetic: U max(S, S[cut]) V^T, "
        "cut: where the running sum of S reaches beta of all",
    AM_SPECTRAL_FIELDS,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .on_grid = true,
    .dense_bytes = dense_bytes,
    .merge_dense = merge_dense,
};
