/* Optimisers: each one file in optim/, walking one flat block of parameters.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_OPTIM_H
#define AM_SOLVER_TRAINING_OPTIM_H

#include <stdbool.h>
#include <stdint.h>
#include "mpi/param.h"

typedef struct am_optim_options {
    int method;                   /* index in the optimiser table, by name: am_optim_find */
    double lr;                    /* learning rate */
    double momentum;              /* sgd, nesterov */
    double weight_decay;          /* decoupled for adamw and lion, L2 for sgd and nesterov */
    double beta1, beta2, epsilon; /* adamw, lion (betas), lamb */
    double clip;                  /* global gradient norm, 0: off */
    bool decoupled_decay;         /* sgd, nesterov: decay the weights, not the gradient */
    char *no_decay;               /* patterns of tensors that do not decay; NULL: none; owned by a
                                     recipe, else borrowed */
    bool bf16_weights;            /* f32 only: weights are bf16 numbers, the state holds f32 ones */
    bool is_sharded;              /* a rank keeps the state of its slice only */
} am_optim_options;

/** Index of the optimiser called `name` ("sgd", "adamw", "lion", ...), -1 if unknown. */
int am_optim_find(const char *name);
/** NULL-terminated names, for messages and help. */
const char *const *am_optim_names(void);

/** Parameter table of am_optim_options for recipes, with defaults and ranges. The choices come from
 * the optimiser table. */
const am_param *am_optim_params(void);

/** True unless `tensor` matches one of the patterns of options->no_decay, a list of shell patterns
 * (* ? [abc]) with commas or spaces between them. Pure. */
bool am_optim_decays(const am_optim_options *options, const char *tensor);
/** Factor of the weights in the gradient (L2 decay) and factor that the weights keep (decoupled
 * decay, 1 without), for optimisers that know both. Pure. */
double am_optim_l2(const am_optim_options *options);
double am_optim_keep(const am_optim_options *options);

#endif
