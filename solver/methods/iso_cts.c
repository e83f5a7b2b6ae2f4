/* Iso-CTS: as Iso-C, but the weakest directions of the sum give way to directions that belong to
 * one task each. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/spectral.h"

enum { COMMON = AM_SPECTRAL_OWN };

static const am_method_param params[] = {
    AM_SPECTRAL_PARAMS(1),
    [COMMON] = {.key = "common_fraction",
                .fallback = 0.8,
                .low = 0,
                .high = 1,
                .help = "of the directions, how many are those of the sum, at least"},
    {0}};

/* Directions of each task: as published, the rest by T, rounded to nearest even. */
static int64_t own(const am_unit *unit, const am_spectral_size *s)
{
    const int64_t common = (int64_t)floor(unit->param[COMMON] * (double)s->k + 1e-9);
    const int64_t each = (int64_t)rint((double)(s->k - common) / s->models);
    return each < s->k / s->models ? each : s->k / s->models;
}

static int64_t dense_bytes(const am_unit *unit)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    const int64_t each = own(unit, &s), common = s.k - each * s.models;
    const int64_t first = am_directions_add_bytes(s.on, s.m, s.n, common);
    const int64_t next = am_directions_add_bytes(s.on, s.m, s.n, each);
    const int64_t add = first > next ? first : next;
    const int64_t turn = am_directions_turn_bytes(s.on, s.m, s.n, s.k);
    return am_directions_bytes(s.on, s.m, s.n, s.k) + am_matrix_bytes_on(s.on, common, s.n) +
           (add > turn ? add : turn);
}

/* delta -= C C^T delta; along [common, n] is scratch. */
static void project_off(am_matrix common, am_matrix along, am_matrix delta)
{
    am_multiply(1, common, AM_TRANSPOSED, delta, AM_AS_IS, 0, along);
    am_multiply(-1, common, AM_AS_IS, along, AM_AS_IS, 1, delta);
}

/* C: the leading directions of the sum; of each task the leading ones of delta_t - C C^T delta_t.
 * All of them made orthogonal, and given the mean of their singular values. */
static int merge_dense(const am_dense *matrix)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    const int64_t each = own(matrix->unit, &s), common = s.k - each * s.models;
    am_directions d = am_directions_take(matrix->work, matrix->out, s.m, s.n, s.k);
    double total = 0;
    am_spectral_sum(matrix, matrix->out);
    int rc = am_directions_add(matrix->work, matrix->out, 0, common, &d);
    const int64_t found = d.count;
    const am_matrix basis = am_matrix_part(d.left, 0, 0, s.m, found);
    const am_matrix along = am_matrix_part(
        am_matrix_take_like(matrix->work, matrix->out, common, s.n), 0, 0, found, s.n);
    for (int t = 0; rc == 0 && t < s.models && each > 0; t++) {
        const double length = am_matrix_norm(matrix->delta[t]);
        project_off(basis, along, matrix->delta[t]);
        rc = am_directions_add(matrix->work, matrix->delta[t], length, each, &d);
    }
    for (int64_t i = 0; rc == 0 && i < d.count; i++) {
        total += d.value[i];
    }
    for (int64_t i = 0; rc == 0 && i < d.count; i++) {
        d.value[i] = total / (double)s.k;
    }
    return rc != 0 ? rc : am_directions_merge(matrix, &d);
}

const am_method am_method_iso_cts = {
    .name = "iso_cts",
    .summary = "common and task-specific directions with equal singular values (Iso-CTS)",
    .source =
        "Marczak et al. 2025 (arXiv:2502.04959), Iso-CTS: leading directions of sum_t delta_t "
        "and of each delta_t outside of them, polar factors, mean(S)",
    AM_SPECTRAL_FIELDS,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .on_grid = true,
    .dense_bytes = dense_bytes,
    .merge_dense = merge_dense,
};
