/* Barycentre of many models on a sphere. The reference projects to the tangent space at the
 * weighted mean direction, averages there and comes back; but the tangents of that very point
 * average to zero, so what it computes is the weighted mean direction at the weighted mean length.
 * That is done here, from the Gram matrix. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/angles.h"

enum { WEIGHT, NORMALIZE_WEIGHTS, EPS };

static const am_method_param params[] = {
    [WEIGHT] = {.key = "weight",
                .per_model = true,
                .required = true,
                .low = -1e9,
                .high = 1e9,
                .help = "share of a model's direction and length"},
    [NORMALIZE_WEIGHTS] = {.key = "normalize_weights",
                           .is_bool = true,
                           .fallback = 1,
                           .help = "divide the weights by their sum"},
    [EPS] = {.key = "eps",
             .fallback = 1e-8,
             .low = 0,
             .high = 1,
             .help = "added to lengths; a shorter mean direction is none"},
    {0}};

/* What the weights are divided by. */
static double total_of(const double *param, const double *const *model_param, int models)
{
    double total = 0;
    for (int t = 0; t < models; t++) {
        total += model_param[t][WEIGHT];
    }
    return param[NORMALIZE_WEIGHTS] != 0 ? total : 1;
}

static const char *const cancelled =
    "the weights sum to zero: change them or set `normalize_weights: false`";

static const char *check(const am_tile *tile)
{
    return tile->models > 1 && total_of(tile->param, tile->model_param, tile->models) == 0
               ? cancelled
               : NULL;
}

/* c_t = (sum_k w_k |x_k|) w_t / ((|x_t| + eps) |sum_k w_k x_k / (|x_k| + eps)|) */
static const char *solve(const am_unit *unit)
{
    const int n = unit->models;
    const double eps = unit->param[EPS];
    const double total = total_of(unit->param, unit->model_param, n);
    double *c = unit->state, mean_length = 0, longest = 0;
    if (n == 1) {
        c[0] = 1;
        return NULL;
    }
    if (total == 0) {
        return cancelled;
    }
    for (int t = 0; t < n; t++) {
        const double weight = unit->model_param[t][WEIGHT] / total;
        const double length = sqrt(am_gram_at(unit->sum, t, t));
        mean_length += weight * length;
        longest = fmax(longest, length);
        c[t] = length + eps > 0 ? weight / (length + eps) : 0;
    }
    const double mean = am_gram_norm(unit->sum, n, c);
    if (mean >= eps && mean > 0) {
        for (int t = 0; t < n; t++) {
            c[t] *= mean_length / mean;
        }
        return NULL;
    }
    if (n > 2 && longest > 0) { /* vectors of zero have a mean */
        return "the weighted directions of the models cancel: change the weights";
    }
    for (int t = 0; t < n; t++) {
        c[t] = unit->model_param[t][WEIGHT] / total;
    }
    return NULL;
}

const am_method am_method_multislerp = {
    .name = "multislerp",
    .summary = "weighted mean direction of the models at their weighted mean length; of their task "
               "vectors when there is a base",
    .source = "mergekit multislerp: (sum_t w_t |x_t|) m / |m|, m = sum_t w_t x_t / (|x_t| + eps); "
              "two models that cancel: sum_t w_t x_t",
    .takes_base = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY | AM_PROP_ZERO_REMOVES,
    .params = params,
    .check = check,
    AM_GRAM_METHOD(solve),
};
