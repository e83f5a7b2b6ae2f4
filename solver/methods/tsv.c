/* Task singular vectors (TSV-M): the leading singular directions of every task vector, made
 * orthogonal to each other before they are put together again.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/spectral.h"

enum { RANK_FRACTION = AM_SPECTRAL_OWN };

static const am_method_param params[] = {
    AM_SPECTRAL_PARAMS(1),
    [RANK_FRACTION] = {.key = "rank_fraction",
                       .low = 0,
                       .high = 1,
                       .help =
                           "of a task vector's directions, how many stay, one at least; 0: 1/T"},
    {0}};

/* Of each model; published code takes int(k (1/T)), which is none where k < T. */
static int64_t kept(const am_unit *unit, const am_spectral_size *s)
{
    const double share = unit->param[RANK_FRACTION];
    return am_spectral_directions(share > 0 ? share : 1.0 / s->models, s->k);
}

static int64_t dense_bytes(const am_unit *unit)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    const int64_t room = kept(unit, &s) * s.models;
    const int64_t add = am_directions_add_bytes(s.on, s.m, s.n, kept(unit, &s));
    const int64_t turn = am_directions_turn_bytes(s.on, s.m, s.n, room);
    return am_directions_bytes(s.on, s.m, s.n, room) + (add > turn ? add : turn);
}

/* All directions side by side, of the longer side. */
static void largest(const am_unit *unit, int64_t *rows, int64_t *cols)
{
    const am_spectral_size s = am_spectral_size_of(unit);
    *rows = s.m > s.n ? s.m : s.n;
    *cols = kept(unit, &s) * s.models;
}

/* With delta_t = U_t S_t V_t^T cut to r directions: U = [U_1 .. U_T], V likewise,
 * out = lambda polar(U) diag(S_1 .. S_T) polar(V)^T. */
static int merge_dense(const am_dense *matrix)
{
    const am_spectral_size s = am_spectral_size_of(matrix->unit);
    const int64_t each = kept(matrix->unit, &s);
    am_directions d = am_directions_take(matrix->work, matrix->out, s.m, s.n, each * s.models);
    int rc = 0;
    for (int t = 0; rc == 0 && t < s.models; t++) {
        rc = am_directions_add(matrix->work, matrix->delta[t], 0, each, &d);
    }
    return rc != 0 ? rc : am_directions_merge(matrix, &d);
}

const am_method am_method_tsv = {
    .name = "tsv",
    .summary = "leading singular directions of all task vectors, made orthogonal (TSV-M)",
    .source = "Gargiulo et al. 2025 (arXiv:2412.00081), TSV-Merge: polar([U_1 .. U_T]) diag(S_1 .. "
              "S_T) polar([V_1 .. V_T])^T, each delta_t cut to min(m, n) / T directions",
    AM_SPECTRAL_FIELDS,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .on_grid = true,
    .dense_bytes = dense_bytes,
    .largest = largest,
    .merge_dense = merge_dense,
};
