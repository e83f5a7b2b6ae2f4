/* Is there room on the disk for a whole run? Asked before it begins: a run that fails in its ninth
 * hour for want of space could have said so in its first second. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ROOM_H
#define AM_JOBS_TRAINING_ROOM_H

#include "jobs/training/iterate/iterate.h"

/** All checkpoints that iterate has on disk at one time (those that `keep` removes not counted),
 * and the states of what is being trained; an upper bound. Local. Errors: AM_E_NOMEM. */
int am_room_of_iterate(const am_iterate *it, int64_t *bytes);
/** The same of train, with these keys. */
int64_t am_room_of_train(const am_iterate *it, const am_train_section *section);

/** The same of twin; made: bytes of all twins and of the router. */
int64_t am_room_of_twin(const am_iterate *it, int64_t made);
/** The same of regmean. */
int64_t am_room_of_regmean(const am_iterate *it);

/** Check that the run's folder has room for `bytes`, less what is in it already. Collective [comm];
 * rank 0 looks. Errors: AM_E_IO naming the folder, what it needs and what is free. */
int am_room_check_all(MPI_Comm comm, const am_run_folder *folder, int64_t bytes);

#endif
