/* How much memory the data sets of a training job may take, so that a rank stays within a budget.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_FIT_H
#define AM_JOBS_TRAINING_FIT_H

#include "jobs/training/memory.h"

/** Divide `room` bytes among n data sets that take least[i] to most[i] bytes: all get the least,
 * and equal parts of the rest up to what they take. Pure but for memory.
 * Errors: AM_E_NOMEM. */
int am_fit_share(const int64_t *least, const int64_t *most, int n, int64_t room, int64_t *share);

/** Set recipe->room so that each of `ranks` ranks of the job stays below `memory` bytes (0: any),
 * and tell what it then takes. need, process: NULL: not asked.
 *
 * Collective [comm]; arguments [same]. Errors: AM_E_USAGE naming the smallest budget that does;
 * those of am_train_plan_all; agreed. */
int am_train_fit_all(MPI_Comm comm, am_train_recipe *recipe, am_train_job job, int ranks,
                     int64_t memory, am_train_need *need, am_process *process);

#endif
