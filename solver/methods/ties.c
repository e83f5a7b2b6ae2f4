/* TIES: trim task vectors to their largest elements, elect a sign, merge what agrees with it.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/consensus.h"

enum { MERGE_MAX = AM_SPARSE_OWN };

static const am_method_param params[] = {
    AM_SPARSE_PARAMS(1, 0),
    [MERGE_MAX] = {.key = "merge_max",
                   .is_bool = true,
                   .help = "take the largest that agrees, not the mean (`normalize: false`: sum)"},
    {0}};

static void merge(const am_tile *tile, am_sparsify *sparsify)
{
    if (tile->param[MERGE_MAX] != 0) {
        am_combine_largest(tile, sparsify);
    } else {
        am_combine_elected(tile, sparsify);
    }
}

AM_SPARSE_ELECTED(am_sparsify_top, merge)

const am_method am_method_ties = {
    .name = "ties",
    .summary = "largest elements of the task vectors, merged where they agree on a sign",
    .source =
        "Yadav et al. 2023 (arXiv:2306.01708), algorithm 1; mergekit: k = int(density n) elements "
        "of a tensor, votes weighted",
    AM_SPARSE_FIELDS,
    .rounded = AM_ROUNDED_TOO,
    .properties = AM_PROP_ORDER_INVARIANT,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .n_passes = 3,
    .pass = {{.rounded = AM_ROUNDED_ALONE,
              .count = am_top_count,
              .keys = am_top_keys,
              .cuts = am_top_cuts},
             AM_NORMS_PASS(AM_ROUNDED_TOO),
             AM_MAJORITY_PASS},
};
