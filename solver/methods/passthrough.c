/* One model as it is, or scaled. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/method.h"

enum { SCALE };

static const am_method_param params[] = {[SCALE] = {.key = "scale",
                                                    .per_model = true,
                                                    .fallback = 1,
                                                    .low = -1e9,
                                                    .high = 1e9,
                                                    .help = "factor of the tensor"},
                                         {0}};

/* out = scale * x; a tensor that the model lacks is zero. */
static void combine(const am_tile *tile)
{
    const double scale = tile->models > 0 ? tile->model_param[0][SCALE] : 0;
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = tile->models > 0 ? scale * tile->x[0][i] : 0;
    }
}

const am_method am_method_passthrough = {
    .name = "passthrough",
    .summary = "one model, each tensor times its scale",
    .source = "mergekit passthrough: scale * theta",
    .min_models = 1,
    .max_models = 1,
    .properties =
        AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY | AM_PROP_ELEMENTWISE | AM_PROP_LINEAR,
    .params = params,
    .combine = combine,
};
