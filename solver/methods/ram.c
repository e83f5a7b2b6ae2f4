/* RAM: the mean of the task vectors that are active at an element.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/reinforced.h"

enum { EPSILON };

static const am_method_param params[] = {[EPSILON] = AM_REINFORCED_EPSILON, {0}};

static void combine(const am_tile *tile)
{
    am_reinforced_combine(tile, tile->param[EPSILON], NULL);
}

const am_method am_method_ram = {
    .name = "ram",
    .summary = "mean of the task vectors that are active at an element",
    .source = "reinforced agent merging, arXiv:2601.13572; as in mergekit",
    .needs_base = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_ELEMENTWISE,
    .params = params,
    .scratch = am_reinforced_scratch,
    .combine = combine,
};
