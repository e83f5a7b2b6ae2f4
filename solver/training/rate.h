/* Learning rates over a run: a table of schedules, each a factor of the recipe's rate.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_RATE_H
#define AM_SOLVER_TRAINING_RATE_H

#include <stdint.h>
#include "mpi/param.h"

/* Epochs and steps count over the whole run, also where it trains in several calls. */
typedef struct am_rate {
    int schedule;   /* index in the table, by name: am_rate_find; 0: constant */
    int64_t warmup; /* steps over which the rate grows linearly from 0, before any schedule */
    double floor;   /* cosine, linear: the factor at the end of the run */
    int64_t every;  /* step: epochs between two steps, 0: never */
    double factor;  /* step: of each step */
    double decay;   /* after every epoch, times any schedule; 0 or 1: none */
    int64_t epochs; /* of the whole run, for cosine and linear; 0: those of this call */
} am_rate;

/** Index of the schedule called `name` ("constant", "cosine", "linear", "step"), -1 if unknown. */
int am_rate_find(const char *name);
/** Parameter table of am_rate for recipes: lr_schedule, lr_warmup, lr_floor, lr_every, lr_factor,
 * lr_decay, lr_epochs. */
const am_param *am_rate_params(void);

/** lr times the factor of step `step` of epoch `epoch` (both from 0, `steps` an epoch) of a run of
 * `epochs` epochs. Pure. */
double am_rate_at(const am_rate *rate, double lr, int64_t epoch, int64_t step, int64_t steps,
                  int64_t epochs);

#endif
