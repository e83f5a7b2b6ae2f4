/* `allmerge regmean`: RegMean++ of models that are there, as a run folder.
 *
 *     RUN/base.h5 heads.h5 layers/NNNN.h5 (on the way) merged.h5 table.txt result.json
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_REGMEAN_JOB_H
#define AM_JOBS_TRAINING_REGMEAN_JOB_H

#include "jobs/training/job.h"

/** am_job.check, inputs and work_all of it. */
int am_regmean_check(const am_train_recipe *recipe);
char **am_regmean_inputs(const am_train_recipe *recipe);
int am_regmean_work_all(am_iterate *it, const am_run_folder *folder, const am_job *job);

#endif
