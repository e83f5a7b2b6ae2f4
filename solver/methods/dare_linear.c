/* DARE: drop elements of the task vectors at random and make up for them.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/consensus.h"

static const am_method_param params[] = {AM_SPARSE_PARAMS(0, 1), {0}};

static void combine(const am_tile *tile)
{
    am_combine_plain(tile, am_sparsify_random);
}

const am_method am_method_dare_linear = {
    .name = "dare_linear",
    .summary = "random parts of the task vectors, rescaled",
    .source = AM_RANDOM_SOURCE,
    AM_SPARSE_FIELDS,
    .drops_at_random = true,
    .properties = AM_PROP_ZERO_REMOVES,
    .n_passes = 1,
    .pass = {AM_RANDOM_NORMS_PASS},
};
