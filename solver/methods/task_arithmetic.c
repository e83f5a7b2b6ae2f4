/* Task arithmetic: base plus a weighted sum of task vectors.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "mpi/clones.h"
#include "solver/merge/method.h"

enum { WEIGHT, LAMBDA, NORMALIZE };

static const am_method_param params[] = {
    [WEIGHT] = {.key = "weight",
                .per_model = true,
                .required = true,
                .low = -100,
                .high = 100,
                .help = "factor of a task vector; negative forgets the task"},
    [LAMBDA] = {.key = "lambda",
                .fallback = 1,
                .low = -100,
                .high = 100,
                .help = "factor of the summed task vectors"},
    [NORMALIZE] = {.key = "normalize", .is_bool = true, .help = "divide by the sum of the weights"},
    {0}};

/* mergekit divides by 1 where the weights cancel; so do we, for its recipes. */
static double divisor(const am_tile *tile)
{
    double total = 0;
    for (int t = 0; t < tile->models; t++) {
        total += tile->model_param[t][WEIGHT];
    }
    return fabs(total) < 1e-8 ? 1 : total;
}

AM_CLONES static void add_scaled(double *restrict out, double weight, const double *restrict x,
                                 const double *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] += weight * (x[i] - base[i]);
    }
}

AM_CLONES static void finish(double *restrict out, double scale, const double *restrict base,
                             int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = base[i] + scale * out[i];
    }
}

/* out = base + lambda * sum_t w_t (x_t - base) [/ sum_t w_t], models in the order of the recipe. */
static void combine(const am_tile *tile)
{
    double scale = tile->param[LAMBDA];
    if (tile->param[NORMALIZE] != 0) {
        scale /= divisor(tile);
    }
    memset(tile->out, 0, (size_t)tile->n * sizeof *tile->out);
    for (int t = 0; t < tile->models; t++) {
        add_scaled(tile->out, tile->model_param[t][WEIGHT], tile->x[t], tile->base, tile->n);
    }
    finish(tile->out, scale, tile->base, tile->n);
}

const am_method am_method_task_arithmetic = {
    .name = "task_arithmetic",
    .summary = "base plus a weighted sum of task vectors",
    .source = "Ilharco et al. 2023 (arXiv:2212.04089), section 2: "
              "theta_0 + lambda sum_t w_t (theta_t - theta_0)",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY | AM_PROP_ELEMENTWISE |
                  AM_PROP_LINEAR | AM_PROP_ZERO_REMOVES,
    .params = params,
    .combine = combine,
};
