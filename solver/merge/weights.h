/* Methods whose first parameter is a weight of each model, and that divide by the sum of these.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_WEIGHTS_H
#define AM_SOLVER_MERGE_WEIGHTS_H

#include "solver/merge/method.h"

enum { AM_WEIGHT };

/** am_method.check: the weights of a tensor do not sum to zero. */
const char *am_weights_check(const am_tile *tile);

#endif
