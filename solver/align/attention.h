/* Which heads of attention go together. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ALIGN_ATTENTION_H
#define AM_SOLVER_ALIGN_ATTENTION_H

#include "solver/training/layer.h"

/** Match groups of heads, query heads inside each, and their features.
 *
 * Local, pure: the same answer everywhere. S[4], match[4]: of queries [H D], keys [G D], values
 * [G D], outputs [H D]; similarities are rows of units of the base.
 * Cost: G^2 pairs of groups, each a few assignments of D features; with several query heads in a
 * group these and the features are matched in turn, from the features that keys and values give.
 * Errors: AM_E_NUMERIC, AM_E_NOMEM. */
int am_align_attention(const am_layer_heads *heads, double *const S[4], int64_t *const match[4]);

#endif
