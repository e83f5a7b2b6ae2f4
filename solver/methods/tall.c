/* TALL masks and Consensus: keep of the summed task vectors what at least two tasks use, or what
 * one task uses. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "solver/merge/sparsify.h"

enum { TASK, MASK_LAMBDA, LAMBDA, AGREE };

static const am_method_param params[] = {
    [TASK] = AM_TASK_PARAM,
    [MASK_LAMBDA] = {.key = "mask_lambda",
                     .per_model = true,
                     .fallback = 0.4,
                     .high = 100,
                     .help = "a larger one makes the task's mask smaller"},
    [LAMBDA] = {.key = "lambda",
                .fallback = 0.3,
                .low = -100,
                .high = 100,
                .help = "factor of the summed task vectors"},
    [AGREE] = {.key = "agree",
               .fallback = 2,
               .high = AM_MAX_MODELS,
               .help = "how many tasks must use an element"},
    {0}};

enum { SUMMED, USES, VECTORS };

static int scratch(int models)
{
    (void)models;
    return VECTORS;
}

static bool has_task(const am_tile *tile)
{
    bool any = false;
    for (int t = 0; t < tile->models; t++) {
        any = any || tile->model_param[t][TASK] != 0;
    }
    return any;
}

/* summed = lambda sum_t delta_t; task t uses an element if |delta_t| > lambda_t |summed -
 * delta_t|. */
static void combine(const am_tile *tile)
{
    double *summed = tile->scratch + SUMMED * tile->n, *uses = tile->scratch + USES * tile->n;
    const bool one_task = has_task(tile);
    const double least = one_task ? 1 : tile->param[AGREE];
    am_sum_task_vectors(tile, uses, summed);
    memset(uses, 0, (size_t)tile->n * sizeof *uses);
    for (int64_t i = 0; i < tile->n; i++) {
        summed[i] *= tile->param[LAMBDA];
    }
    for (int t = 0; t < tile->models; t++) {
        const double lambda = tile->model_param[t][MASK_LAMBDA];
        if (one_task && tile->model_param[t][TASK] == 0) {
            continue;
        }
        for (int64_t i = 0; i < tile->n; i++) {
            const double delta = tile->x[t][i] - tile->base[i];
            uses[i] += fabs(delta) > lambda * fabs(summed[i] - delta);
        }
    }
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = tile->base[i] + (uses[i] >= least ? summed[i] : 0);
    }
}

static const char *check(const am_tile *tile)
{
    return am_check_one_task(tile, TASK);
}

const am_method am_method_tall = {
    .name = "tall",
    .summary = "what several tasks use of the summed task vectors; or what one task uses",
    .source = "Wang et al. 2024 (arXiv:2405.07813), equation 4 (TALL masks) and section 4.2 "
              "(Consensus)",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_ELEMENTWISE,
    .params = params,
    .scratch = scratch,
    .check = check,
    .combine = combine,
};
