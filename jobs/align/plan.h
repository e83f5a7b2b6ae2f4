/* What align and pleas would take. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_ALIGN_PLAN_H
#define AM_JOBS_ALIGN_PLAN_H

#include "jobs/training/memory.h"

/** Memory of align by activations, or of pleas at a budget of 2, on `ranks` ranks, with the other
 * options as they are without being given. recipe: adapted to it, of no use afterwards. Collective
 * [am_world]. Errors: those of am_train_fit_all and of the network; agreed. */
int am_align_plan_all(am_train_recipe *recipe, bool is_pleas, int ranks, int64_t memory,
                      am_train_need *need, am_process *process);

#endif
