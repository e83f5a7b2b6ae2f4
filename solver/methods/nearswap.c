/* The base, drawn to a second model where the two are near. SPDX-License-Identifier: BSD-3-Clause
 */
#include <math.h>
#include <stddef.h>
#include "solver/merge/method.h"

enum { T };

static const am_method_param params[] = {
    [T] = {.key = "t",
           .required = true,
           .low = 0,
           .high = 1e9,
           .help = "how far an element moves at most; nearer ones become the model's"},
    {0}};

static const double NEAREST = 1e-6; /* smaller distances count as this one */

/* w = clamp(t / max(|base - x|, 1e-6), 0, 1); out = w x + (1 - w) base. */
static void combine(const am_tile *tile)
{
    const double t = tile->param[T];
    const double *x = tile->models > 0 ? tile->x[0] : tile->base;
    for (int64_t i = 0; i < tile->n; i++) {
        const double weight = fmin(t / fmax(fabs(tile->base[i] - x[i]), NEAREST), 1);
        tile->out[i] = weight * x[i] + (1 - weight) * tile->base[i];
    }
}

const am_method am_method_nearswap = {
    .name = "nearswap",
    .summary = "the base, its elements moved by at most t towards the model",
    .source = "NearSwap (QuartetAnemoi-70B model card), as in mergekit: "
              "w x + (1 - w) theta_0, w = min(t / |theta_0 - x|, 1)",
    .needs_base = true,
    .min_models = 1,
    .max_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_ELEMENTWISE,
    .params = params,
    .combine = combine,
};
