/* Task vectors scaled linearly with depth. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/angles.h"

enum { WEIGHT, ALPHA, BETA };

static const am_method_param params[] = {
    [WEIGHT] = AM_FACTOR_PARAM("weight", true, "factor of a task vector"),
    [ALPHA] = {.key = "alpha",
               .fallback = 0.5,
               .low = -100,
               .high = 100,
               .help = "scale in the first layer, and outside of the layers"},
    [BETA] = {.key = "beta",
              .fallback = 0.5,
              .low = -100,
              .high = 100,
              .help = "what the last layer's scale adds to it"},
    {0}};

/* out = base + (alpha + beta layer / (layers - 1)) sum_t w_t (x_t - base) */
static void combine(const am_tile *tile)
{
    const bool is_inside = tile->layer >= 0 && tile->layers > 1;
    const double depth = is_inside ? (double)tile->layer / (double)(tile->layers - 1) : 0;
    const double scale = tile->param[ALPHA] + tile->param[BETA] * depth;
    double c[AM_MAX_MODELS];
    for (int t = 0; t < tile->models; t++) {
        c[t] = scale * tile->model_param[t][WEIGHT];
    }
    am_tile_combine(tile, c);
}

const am_method am_method_lines = {
    .name = "lines",
    .summary = "base plus task vectors whose scale grows linearly with the layer",
    .source = "Wang et al. 2025, LiNeS (arXiv:2410.17146): "
              "theta_0 + sum_t w_t (alpha + beta l / (L - 1)) tau_t in layer l of L, from 0",
    .needs_base = true,
    .min_models = 1,
    .properties =
        AM_PROP_ORDER_INVARIANT | AM_PROP_ELEMENTWISE | AM_PROP_LINEAR | AM_PROP_ZERO_REMOVES,
    .params = params,
    .combine = combine,
};
