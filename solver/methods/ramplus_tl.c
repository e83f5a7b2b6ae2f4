/* RAM+ (tensor-local): what only one model changed is amplified, the more the larger the shared
 * part of that model's changes is. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/reinforced.h"

enum { EPSILON, R, ALPHA };

static const am_method_param params[] = {
    [EPSILON] = AM_REINFORCED_EPSILON,
    [R] = {.key = "r",
           .fallback = 0.1,
           .low = -1e9,
           .high = 1e9,
           .help = "gain of unique elements, times shared per unique"},
    [ALPHA] = {.key = "alpha",
               .fallback = 0.2,
               .high = 1e9,
               .help = "shared per unique counts at most this much"},
    {0}};

static int count(const am_unit *unit)
{
    return 2 * unit->models;
}

/* Model t: elements that it shares with others, elements of its own. */
static void sums(const am_tile *tile, double *sum)
{
    double *counts = tile->scratch;
    bool *active = (bool *)(void *)(tile->scratch + tile->n);
    am_reinforced_counts(tile, tile->param[EPSILON], counts);
    for (int t = 0; t < tile->models; t++) {
        int64_t shared = 0, unique = 0;
        am_reinforced_active(tile, t, tile->param[EPSILON], active);
        for (int64_t i = 0; i < tile->n; i++) {
            shared += active[i] && counts[i] > 1;
            unique += active[i] && counts[i] == 1;
        }
        sum[2 * t] += (double)shared;
        sum[2 * t + 1] += (double)unique;
    }
}

static int states(const am_unit *unit)
{
    return unit->models;
}

/* lambda_t = 1 + r min(alpha, shared_t / max(unique_t, epsilon)) */
static const char *solve(const am_unit *unit)
{
    for (int t = 0; t < unit->models; t++) {
        const double shared = unit->sum[2 * t], unique = unit->sum[2 * t + 1];
        const double least = unique > unit->param[EPSILON] ? unique : unit->param[EPSILON];
        const double alpha = unit->param[ALPHA];
        const double ratio = shared == 0 ? 0 : shared < alpha * least ? shared / least : alpha;
        unit->state[t] = 1 + unit->param[R] * ratio;
    }
    return NULL;
}

static void combine(const am_tile *tile)
{
    am_reinforced_combine(tile, tile->param[EPSILON], tile->unit->state);
}

const am_method am_method_ramplus_tl = {
    .name = "ramplus_tl",
    .summary = "ram, with what a single model changed amplified",
    .source = "reinforced agent merging plus, arXiv:2601.13572; tensor by tensor as in mergekit",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .states = states,
    .scratch = am_reinforced_scratch,
    .n_passes = 1,
    .pass = {{.count = count, .sums = sums, .solve = solve}},
    .combine = combine,
};
