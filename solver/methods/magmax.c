/* MagMax: of all task vectors the element of largest magnitude.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include "solver/merge/method.h"

enum { LAMBDA };

static const am_method_param params[] = {[LAMBDA] = {.key = "lambda",
                                                     .fallback = 0.5,
                                                     .low = -100,
                                                     .high = 100,
                                                     .help = "factor of the merged task vector"},
                                         {0}};

/* The later model wins a tie: not independent of their order. */
static void combine(const am_tile *tile)
{
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = 0;
    }
    for (int t = 0; t < tile->models; t++) {
        const double *x = tile->x[t];
        for (int64_t i = 0; i < tile->n; i++) {
            const double delta = x[i] - tile->base[i];
            tile->out[i] = fabs(delta) >= fabs(tile->out[i]) ? delta : tile->out[i];
        }
    }
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = tile->base[i] + tile->param[LAMBDA] * tile->out[i];
    }
}

const am_method am_method_magmax = {
    .name = "magmax",
    .summary = "the task vectors' elements of largest magnitude",
    .source = "Marczak et al. 2024 (arXiv:2407.06322), section 4",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ELEMENTWISE,
    .params = params,
    .combine = combine,
};
