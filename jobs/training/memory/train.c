/* Phases of train. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory/planner.h"

#include "mpi/error.h"

int am_plan_train_phases(am_planner *p, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    const int64_t reals = 2 * p->plain.trunk + am_plan_adapted_reals(p, 1);
    const am_plan_call c = {am_plan_trained(p),
                            r->n_tasks == 1 ? &r->finetune : &r->joint,
                            p->shape,
                            r->n_tasks,
                            true,
                            false,
                            p->ranks,
                            false};
    am_train_need need;
    int rc = am_plan_call_need(p, &c, &need);
    need.parameters = 0; /* the session goes back to a file */
    am_plan_offer(p, "train", reals, need, out);
    AM_KEEP(am_plan_offer_evaluation(p, reals, need.optimizer, out));
    return rc;
}
