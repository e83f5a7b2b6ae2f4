/* EMR: elect a sign, keep the largest magnitude with it; a mask and a scale for every task give
 * that task's model back. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/sparsify.h"

enum { TASK, LAMBDA, TENSOR_MEANS };

static const am_method_param params[] = {
    [TASK] = AM_TASK_PARAM,
    [LAMBDA] = {.key = "lambda",
                .fallback = 1,
                .low = -100,
                .high = 100,
                .help = "factor of the merged task vector"},
    [TENSOR_MEANS] = {.key = "tensor_means",
                      .is_bool = true,
                      .help = "scale a task by sums of means, one a tensor, as the published code "
                              "does: small tensors count as much as large ones"},
    {0}};

enum { UNIFIED, DELTA, VECTORS };

static int scratch(int models)
{
    (void)models;
    return VECTORS;
}

/* The model whose task is asked for, -1: none. */
static int task_of(const am_unit *unit)
{
    for (int t = 0; t < unit->models; t++) {
        if (unit->model_param[t][TASK] != 0) {
            return t;
        }
    }
    return -1;
}

/* sign = + if sum_t delta_t > 0 else -; unified = sign max |delta_t| over the t with that sign. */
static void unify(const am_tile *tile)
{
    double *unified = tile->scratch + UNIFIED * tile->n, *delta = tile->scratch + DELTA * tile->n;
    am_sum_task_vectors(tile, delta, unified);
    for (int64_t i = 0; i < tile->n; i++) {
        const double sign = unified[i] > 0 ? 1 : -1;
        double most = 0;
        for (int t = 0; t < tile->models; t++) {
            const double along = sign * (tile->x[t][i] - tile->base[i]);
            most = along > most ? along : most;
        }
        unified[i] = sign * most;
    }
}

static int count(const am_unit *unit)
{
    return task_of(unit) >= 0 ? 2 : 0;
}

/* |delta_t|_1 and |mask_t unified|_1 of the task asked for, or the sums of their tensors' means. */
static void sums(const am_tile *tile, double *sum)
{
    const int task = task_of(tile->unit);
    double *unified = tile->scratch + UNIFIED * tile->n, *delta = tile->scratch + DELTA * tile->n;
    double all = 0, masked = 0;
    unify(tile);
    am_task_vector(tile, task, delta);
    for (int64_t i = 0; i < tile->n; i++) {
        all += fabs(delta[i]);
        masked += delta[i] * unified[i] > 0 ? fabs(unified[i]) : 0;
    }
    const double share = tile->param[TENSOR_MEANS] != 0 ? 1 / (double)tile->numel : 1;
    sum[0] += all * share;
    sum[1] += masked * share;
}

static int states(const am_unit *unit)
{
    (void)unit;
    return 1;
}

static const char *solve(const am_unit *unit)
{
    unit->state[0] = unit->sum[1] > 0 ? unit->sum[0] / unit->sum[1] : 0;
    return NULL;
}

static void combine(const am_tile *tile)
{
    const int task = task_of(tile->unit);
    const double factor = tile->param[LAMBDA] * (task >= 0 ? tile->unit->state[0] : 1);
    double *unified = tile->scratch + UNIFIED * tile->n;
    unify(tile);
    for (int64_t i = 0; i < tile->n; i++) {
        const double delta = task >= 0 ? tile->x[task][i] - tile->base[i] : unified[i];
        tile->out[i] = tile->base[i] + (delta * unified[i] > 0 ? factor * unified[i] : 0);
    }
}

static const char *check(const am_tile *tile)
{
    return am_check_one_task(tile, TASK);
}

const am_method am_method_emr = {
    .name = "emr",
    .summary = "largest magnitudes with the elected sign; or the model of one task, rebuilt",
    .source = "Huang et al. 2024 (arXiv:2405.17461), section 3.2; tensor_means: the authors' code, "
              "whose scales are sums of means of tensors",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .default_scope = AM_SCOPE_GLOBAL,
    .states = states,
    .scratch = scratch,
    .n_passes = 1,
    .pass = {{.count = count, .sums = sums, .solve = solve}},
    .check = check,
    .combine = combine,
};
