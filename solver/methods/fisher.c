/* Mean of models weighted, element by element, by how much each one's loss depends on it.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/method.h"
#include "solver/merge/weights.h"

enum { WEIGHT = AM_WEIGHT, FLOOR, NORMALIZE };

static const am_method_param params[] = {
    [WEIGHT] = {.key = "weight",
                .per_model = true,
                .fallback = 1,
                .low = 0,
                .high = 1e9,
                .help = "factor of a model's Fisher values"},
    [FLOOR] = {.key = "floor",
               .fallback = 1e-6,
               .low = 1e-300,
               .high = 1e9,
               .help = "smaller Fisher values count as this one"},
    [NORMALIZE] = {.key = "normalize",
                   .is_bool = true,
                   .help = "divide a model's Fisher values by the root of their sum of squares"},
    {0}};

static int count(const am_unit *unit)
{
    return unit->param[NORMALIZE] != 0 ? unit->models : 0;
}

static int states(const am_unit *unit)
{
    return unit->models;
}

static void sums(const am_tile *tile, double *sum)
{
    for (int t = 0; t < tile->models; t++) {
        for (int64_t i = 0; i < tile->n; i++) {
            sum[t] += tile->aux[t][i] * tile->aux[t][i];
        }
    }
}

/* state: 1 / |F_t|; a Fisher of zeros is all floor. */
static const char *solve(const am_unit *unit)
{
    for (int t = 0; t < unit->models; t++) {
        unit->state[t] = unit->sum[t] > 0 ? 1 / sqrt(unit->sum[t]) : 1;
    }
    return NULL;
}

/* out = sum_t w_t F_t x_t / sum_t w_t F_t, written from the first model on so that equal models
 * stay as they are: out_k = out_(k-1) + (w_k F_k / W_k) (x_k - out_(k-1)), W_k the sum so far. */
static void combine(const am_tile *tile)
{
    double *total = tile->scratch;
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = total[i] = 0;
    }
    for (int t = 0; t < tile->models; t++) {
        const double unit_length = tile->param[NORMALIZE] != 0 ? tile->unit->state[t] : 1;
        const double weight = tile->model_param[t][WEIGHT] * unit_length;
        const double least = tile->param[FLOOR];
        const double *fisher = tile->aux[t], *x = tile->x[t];
        for (int64_t i = 0; i < tile->n; i++) {
            const double f = weight * fmax(fisher[i], least);
            total[i] += f;
            tile->out[i] += total[i] > 0 ? f / total[i] * (x[i] - tile->out[i]) : 0;
        }
    }
}

static int scratch(int models)
{
    (void)models;
    return 1;
}

const am_method am_method_fisher = {
    .name = "fisher",
    .summary = "mean of the models weighted by Fisher information, element by element",
    .source = "Matena and Raffel 2022 (arXiv:2111.09832), equation 4: "
              "sum_t w_t F_t theta_t / sum_t w_t F_t",
    .needs_aux = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY | AM_PROP_ZERO_REMOVES,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .default_scope = AM_SCOPE_GLOBAL,
    .states = states,
    .scratch = scratch,
    .n_passes = 1,
    .pass = {{.count = count, .sums = sums, .solve = solve}},
    .check = am_weights_check,
    .combine = combine,
};
