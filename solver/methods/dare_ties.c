/* DARE with the election of a sign.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/consensus.h"

static const am_method_param params[] = {AM_SPARSE_PARAMS(0, 1), {0}};

static void majority(const am_tile *tile, double *sum)
{
    am_majority_sums(tile, am_sparsify_random, sum);
}

static void combine(const am_tile *tile)
{
    am_combine_elected(tile, am_sparsify_random);
}

const am_method am_method_dare_ties = {
    .name = "dare_ties",
    .summary = "random parts of the task vectors, rescaled, merged where they agree on a sign",
    .source = AM_RANDOM_SOURCE,
    AM_SPARSE_FIELDS,
    .drops_at_random = true,
    .rounded = AM_ROUNDED_TOO,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .n_passes = 2,
    .pass = {AM_RANDOM_NORMS_PASS, AM_MAJORITY_PASS},
};
