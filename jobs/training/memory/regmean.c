/* Phases of RegMean++. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory/planner.h"

#include "jobs/training/regmean/regmean.h"
#include "mpi/error.h"

int am_plan_regmean_phases(const am_planner *p, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    const int64_t P = p->plain.trunk;
    const int64_t reals =
        4 * P + 2 * am_plan_most_tasks_of_a_group(p) * P + (r->n_tasks + 2) * p->plain.slice;
    int rc = AM_OK;
    am_plan_offer(p, "average", reals, (am_train_need){.parameters = P * (int64_t)sizeof(double)},
                  out);
    for (int i = 0; i < r->n_tasks && rc == AM_OK; i++) {
        am_train_need need = {0};
        rc = am_regmean_need(&p->plain.net, p->ops, &r->regmean, p->ranks,
                             p->shape[i].n[r->regmean.split], p->shape[i].classes, &need.gradients,
                             &need.activations);
        am_plan_offer(p, "layers", reals, need, out);
    }
    AM_KEEP(am_plan_offer_evaluation(p, reals, 0, out));
    return rc;
}
