/* `allmerge twin`: a folder with the shared model, the twins and the router of tuned models, and
 * the scores of samples that are routed.
 *
 *     RUN/base.h5 heads.h5 shared.h5 twins/TASK.h5 router.h5 table.txt result.json
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_TWIN_JOB_H
#define AM_JOBS_TRAINING_TWIN_JOB_H

#include "jobs/training/job.h"
#include "jobs/training/twin/twin.h"

/** Has the recipe all that twins are made of? Errors: AM_E_RECIPE. Local, pure. */
int am_twin_check(const am_train_recipe *recipe);
/** am_job.inputs of it. */
char **am_twin_inputs(const am_train_recipe *recipe);
/** am_job.work_all of it. Collective [it->suite.comm]. */
int am_twin_work_all(am_iterate *it, const am_run_folder *folder, const am_job *job);

/** Open what a finished folder has, for evaluation: shared, a trunk, is read into. Collective
 * [suite->comm]; heads come from the folder too. out: freed by am_twins_free, also after an error.
 * Errors: AM_E_NOINPUT, AM_E_DATA, AM_E_NOMEM; agreed. */
int am_twin_read_all(am_suite *suite, const am_train_recipe *recipe, const char *folder,
                     void *shared, am_twins *out);

#endif
