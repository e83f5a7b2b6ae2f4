/* Breadcrumbs with the election of a sign.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/consensus.h"

static const am_method_param params[] = {AM_SPARSE_PARAMS(0, 0), AM_BAND_PARAMS, {0}};

AM_SPARSE_ELECTED(am_sparsify_band, am_combine_elected)

const am_method am_method_breadcrumbs_ties = {
    .name = "breadcrumbs_ties",
    .summary = "breadcrumbs, merged where the task vectors agree on a sign",
    AM_BAND_FIELDS,
    .properties = AM_PROP_ORDER_INVARIANT,
    AM_SPARSE_FIELDS,
    .rounded = AM_ROUNDED_TOO,
    .n_passes = 3,
    .pass = {{.rounded = AM_ROUNDED_ALONE,
              .count = am_band_count,
              .keys = am_band_keys,
              .cuts = am_band_cuts},
             AM_NORMS_PASS(AM_ROUNDED_TOO),
             AM_MAJORITY_PASS},
};
