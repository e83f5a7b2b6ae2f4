/* Task vectors weighted by their share of the squared length. SPDX-License-Identifier: BSD-3-Clause
 */
#include <stddef.h>
#include "solver/merge/angles.h"

enum { LAMBDA };

static const am_method_param params[] = {
    [LAMBDA] = AM_FACTOR_PARAM("lambda", false, "factor of the whole update"), {0}};

static int count(const am_unit *unit)
{
    return unit->models;
}

static void sums(const am_tile *tile, double *sum)
{
    for (int t = 0; t < tile->models; t++) {
        am_tile one = *tile;
        one.models = 1;
        one.x = tile->x + t;
        am_tile_gram(&one, sum + t);
    }
}

/* c_t = lambda |tau_t|^2 / sum_k |tau_k|^2; nothing to add when all are zero. */
static const char *solve(const am_unit *unit)
{
    double total = 0;
    for (int t = 0; t < unit->models; t++) {
        total += unit->sum[t];
    }
    for (int t = 0; t < unit->models; t++) {
        unit->state[t] = total > 0 ? unit->param[LAMBDA] * unit->sum[t] / total : 0;
    }
    return NULL;
}

const am_method am_method_metagpt = {
    .name = "metagpt",
    .summary = "base plus task vectors weighted by their share of the squared length",
    .source = "Zhou et al. 2024 (arXiv:2406.11385): "
              "lambda_t = |tau_t|^2 / sum_k |tau_k|^2",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .default_scope = AM_SCOPE_GLOBAL,
    .states = am_coefficient_states,
    .n_passes = 1,
    .pass = {{.count = count, .sums = sums, .solve = solve}},
    .combine = am_coefficient_combine,
};
