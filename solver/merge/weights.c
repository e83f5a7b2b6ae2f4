/* Weights of models: see weights.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/weights.h"

#include <stddef.h>

const char *am_weights_check(const am_tile *tile)
{
    double total = 0;
    for (int t = 0; t < tile->models; t++) {
        total += tile->model_param[t][AM_WEIGHT];
    }
    return total == 0 ? "the weights sum to zero" : NULL;
}
