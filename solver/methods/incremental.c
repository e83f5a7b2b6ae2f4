/* One task vector at a time, each taken from what is merged so far: no model must be kept once it
 * is merged. SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>
#include "solver/merge/angles.h"

enum { WEIGHT, LAMBDA, FROM_BASE };

static const am_method_param params[] = {
    [WEIGHT] = AM_FACTOR_PARAM("weight", true, "how far to go towards the model"),
    [LAMBDA] = {.key = "lambda",
                .fallback = 0.5,
                .low = -100,
                .high = 100,
                .help = "factor of every step; 0.5 halves what is left to the model"},
    [FROM_BASE] = {.key = "from_base",
                   .is_bool = true,
                   .help = "take task vectors from the base: the sum of task_arithmetic"},
    {0}};

/* theta_t = theta_(t-1) + lambda w_t (x_t - theta_(t-1)), or (x_t - base); theta_0 = base. */
static void combine(const am_tile *tile)
{
    double *out = tile->out;
    memcpy(out, tile->base, (size_t)tile->n * sizeof *out);
    for (int t = 0; t < tile->models; t++) {
        const double step = tile->param[LAMBDA] * tile->model_param[t][WEIGHT];
        const double *x = tile->x[t];
        const double *from = tile->param[FROM_BASE] != 0 ? tile->base : out;
        for (int64_t i = 0; i < tile->n; i++) {
            out[i] += step * (x[i] - from[i]);
        }
    }
}

const am_method am_method_incremental = {
    .name = "incremental",
    .summary = "one task vector at a time, each from what is merged so far",
    .source =
        "theta_t = theta_(t-1) + lambda w_t (x_t - theta_(t-1)), the convex combination of Qiu et "
        "al. 2025 (arXiv:2505.22389) with steps of your own; from_base: + lambda w_t (x_t - "
        "theta_0); models that come one by one: Tang et al. 2025 (arXiv:2501.09522), whose "
        "projections are not made here",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ELEMENTWISE | AM_PROP_LINEAR | AM_PROP_ZERO_REMOVES,
    .params = params,
    .combine = combine,
};
