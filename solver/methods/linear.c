/* Weighted mean of models: the skeleton of an elementwise method without a base.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "mpi/clones.h"
#include "solver/merge/method.h"

enum { WEIGHT, NORMALIZE };

static const am_method_param params[] = {[WEIGHT] = {.key = "weight",
                                                     .per_model = true,
                                                     .required = true,
                                                     .low = -1e9,
                                                     .high = 1e9,
                                                     .help = "factor of a model"},
                                         [NORMALIZE] = {.key = "normalize",
                                                        .is_bool = true,
                                                        .fallback = 1,
                                                        .help = "divide by the sum of the weights"},
                                         {0}};

static double sum_weights(const am_tile *tile)
{
    double total = 0;
    for (int t = 0; t < tile->models; t++) {
        total += tile->model_param[t][WEIGHT];
    }
    return total;
}

static const char *check(const am_tile *tile)
{
    return tile->param[NORMALIZE] != 0 && sum_weights(tile) == 0
               ? "the weights sum to zero: change them or set `normalize: false`"
               : NULL;
}

AM_CLONES static void add_scaled(double *restrict out, double weight, const double *restrict x,
                                 int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] += weight * x[i];
    }
}

AM_CLONES static void divide(double *out, double by, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] /= by;
    }
}

/* out = sum_t w_t x_t / sum_t w_t, models in the order of the recipe. */
static void combine(const am_tile *tile)
{
    memset(tile->out, 0, (size_t)tile->n * sizeof *tile->out);
    for (int t = 0; t < tile->models; t++) {
        add_scaled(tile->out, tile->model_param[t][WEIGHT], tile->x[t], tile->n);
    }
    const double total = sum_weights(tile);
    if (tile->param[NORMALIZE] != 0 && total != 1) {
        divide(tile->out, total, tile->n);
    }
}

const am_method am_method_linear = {
    .name = "linear",
    .summary = "weighted mean of the models",
    .source = "model soups, Wortsman et al. 2022 (arXiv:2203.05482): "
              "sum_t w_t theta_t / sum_t w_t",
    .base_is_model = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY | AM_PROP_ELEMENTWISE |
                  AM_PROP_LINEAR | AM_PROP_ZERO_REMOVES,
    .params = params,
    .check = check,
    .combine = combine,
};
