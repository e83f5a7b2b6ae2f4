/* DELLA without the election of a sign.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/consensus.h"

static const am_method_param params[] = {AM_SPARSE_PARAMS(0, 1), AM_RANKS_PARAMS, {0}};

AM_SPARSE_PLAIN(am_sparsify_ranks)

const am_method am_method_della_linear = {
    .name = "della_linear",
    .summary = "random parts of the task vectors by rank, rescaled",
    AM_RANKS_FIELDS,
    AM_SPARSE_FIELDS,
    .drops_at_random = true,
    .properties = AM_PROP_ZERO_REMOVES,
    .n_passes = 1,
    .pass = {AM_NORMS_PASS(AM_ROUNDED_NOT)},
};
