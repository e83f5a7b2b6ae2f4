/* Optimisers: each one file in optim/, walking one flat block of parameters.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_OPTIM_H
#define AM_SOLVER_TRAINING_OPTIM_H

#include <stdint.h>
#include "mpi/param.h"

typedef struct am_optim_options {
    int method;                   /* index in the optimiser table, by name: am_optim_find */
    double lr;                    /* learning rate */
    double momentum;              /* sgd */
    double weight_decay;          /* decoupled for adamw, L2 for sgd */
    double beta1, beta2, epsilon; /* adamw */
    double clip;                  /* global gradient norm, 0: off */
} am_optim_options;

/** Index of the optimiser called `name` ("sgd", "adamw"), -1 if unknown. */
int am_optim_find(const char *name);
/** NULL-terminated names, for messages and help. */
const char *const *am_optim_names(void);

/** Parameter table of am_optim_options for recipes: optimizer, lr, momentum, weight_decay, beta1,
 * beta2, epsilon, clip, with defaults and ranges. The choices come from the optimiser table. */
const am_param *am_optim_params(void);

#endif
