/* What happens when training diverges: stop, or take the call back and make it again with half the
 * learning rate, a few times. It depends on the recipe and the data alone, so that an interrupted
 * run takes back what an uninterrupted one does. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ROLLBACK_H
#define AM_JOBS_TRAINING_ROLLBACK_H

#include "solver/training/train.h"

typedef struct am_divergence {
    int64_t rollbacks; /* of one call, or of a whole `train`, at most; 0: stop at once */
    double loss_limit; /* a mean training loss above this is divergence; 0: only NaN and infinity */
} am_divergence;

/** The learning rate after so many rollbacks: halved each time. Local, pure. */
double am_rollback_lr(double lr, int64_t rollbacks);

/** Whether a call of train_all diverged. Local, pure: the same on all ranks. */
bool am_rollback_is_due(const am_divergence *policy, const am_train_result *result);

/** Log a rollback: a warning, and an event "rollback". Local, rank 0 of the job reports. */
void am_rollback_report(const char *purpose, const char *task, int64_t rollbacks, double lr);

#endif
