/* What ram and ramplus_tl have in common. An element of a task vector is active when its magnitude,
 * in f32, is above epsilon. Where one model is active its element counts, times a factor; where
 * several are, their mean. Local and pure. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_REINFORCED_H
#define AM_SOLVER_MERGE_REINFORCED_H

#include "solver/merge/method.h"

/** count[n] = how many models are active at an element. */
void am_reinforced_counts(const am_tile *tile, double epsilon, double *count);
/** active[n] = whether model t is. */
void am_reinforced_active(const am_tile *tile, int t, double epsilon, bool *active);
/** out of a tile; factor [T] of elements where one model is active, NULL: 1. */
void am_reinforced_combine(const am_tile *tile, double epsilon, const double *factor);
int am_reinforced_scratch(int models);

#define AM_REINFORCED_EPSILON                                                                      \
    {                                                                                              \
        .key = "epsilon", .fallback = 1e-5, .high = 1e9,                                           \
        .help = "an element is active above this magnitude"                                        \
    }

#endif
