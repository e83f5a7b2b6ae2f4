/* DELLA: drop elements at random, small ones more often, and elect a sign.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/consensus.h"

static const am_method_param params[] = {AM_SPARSE_PARAMS(1, 1), AM_RANKS_PARAMS, {0}};

AM_SPARSE_ELECTED(am_sparsify_ranks, am_combine_elected)

const am_method am_method_della = {
    .name = "della",
    .summary = "random parts by rank, rescaled, merged where they agree on a sign",
    AM_RANKS_FIELDS,
    AM_SPARSE_FIELDS,
    .drops_at_random = true,
    .rounded = AM_ROUNDED_TOO,
    .n_passes = 2,
    .pass = {AM_NORMS_PASS(AM_ROUNDED_NOT), AM_MAJORITY_PASS},
};
