/* All of a sample as one row, or its pixels as positions. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/training/real_layer.h"

typedef struct am_flatten {
    bool positions;
} am_flatten;

static const am_param attrs[] = {
    {"positions", AM_PARAM_BOOL, offsetof(am_flatten, positions), "no", 0, 0, NULL,
     "keep the last dimension: [H,W,C] becomes [H W,C]"},
    {0},
};

static int am_flatten_shape(const am_layer_site *s, am_shape *out)
{
    const am_flatten *o = s->attrs;
    *out = (am_shape){.n = 1, .d = {am_shape_numel(&s->in[0])}};
    if (o->positions) {
        *out = (am_shape){.n = 2, .d = {am_shape_rows(&s->in[0]), am_shape_features(&s->in[0])}};
    }
    return 0;
}

const am_layer AM_R(am_layer_flatten) = {
    .name = "flatten",
    .summary = "a sample as one row of features, or as positions",
    .attrs = attrs,
    .inputs = 1,
    .is_view = true,
    .axes = {.rule = AM_AXES_CYCLED},
    .shape = am_flatten_shape,
};
