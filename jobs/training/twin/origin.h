/* What a twin and a router were made from, in the metadata of their files: a twin of the shared
 * model and the task's, the router of the shared model and the tasks that it tells apart. A file of
 * another origin is made anew by the job, and refused by what only reads. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_TWIN_ORIGIN_H
#define AM_JOBS_TRAINING_TWIN_ORIGIN_H

#include "jobs/training/run_folder.h"
#include "jobs/training/twin/twin.h"

/** Metadata of the twin of a task; trunk: on the ranks of the task's group. Collective
 * [suite->comm]. out: freed by am_meta_free, also after an error. Errors: AM_E_NOMEM, agreed. */
int am_twin_origin_all(const am_twins *twins, int task, const void *trunk, am_meta *out);
/** The same of the router. Local. Errors: AM_E_NOMEM. */
int am_router_origin(const am_twins *twins, am_meta *out);

/** Is the file RUN/<name> there, sound, and of this origin? Collective [suite->comm]; the same on
 * every rank. */
int am_twin_is_from_all(const am_twins *twins, const am_run_folder *folder, const char *name,
                        const am_meta *origin, bool *is);

/** Errors: AM_E_DATA: the file is of another shared model than twins->shared; or a router of other
 * tasks, or of these in another order. AM_E_NOMEM. Local, the same on every rank. */
int am_twin_check_shared(const am_twins *twins, const am_ckpt *ckpt);
int am_router_check(const am_twins *twins, const am_ckpt *ckpt);

#endif
