/* Breadcrumbs: drop the largest and the smallest elements of every task vector.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/consensus.h"

static const am_method_param params[] = {AM_SPARSE_PARAMS(0, 0), AM_BAND_PARAMS, {0}};

AM_SPARSE_PLAIN(am_sparsify_band)

const am_method am_method_breadcrumbs = {
    .name = "breadcrumbs",
    .summary = "task vectors without their largest and smallest elements",
    AM_BAND_FIELDS,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_ZERO_REMOVES,
    AM_SPARSE_FIELDS,
    .rounded = AM_ROUNDED_TOO,
    .n_passes = 2,
    .pass = {{.rounded = AM_ROUNDED_ALONE,
              .count = am_band_count,
              .keys = am_band_keys,
              .cuts = am_band_cuts},
             AM_NORMS_PASS(AM_ROUNDED_TOO)},
};
