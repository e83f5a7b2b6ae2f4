/* Phases of twin, and of the twins of iterate. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory/planner.h"

#include <stdlib.h>
#include "jobs/training/twin/twin.h"
#include "mpi/arena.h"
#include "mpi/error.h"

static int twin_need(const am_planner *p, am_twins_need *out)
{
    const int T = p->recipe->n_tasks;
    int64_t *validation = am_new(T, sizeof *validation, "a plan");
    int64_t *evaluated = am_new(T, sizeof *evaluated, "a plan");
    int rc = validation == NULL || evaluated == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; rc == AM_OK && i < T; i++) {
        const int64_t *n = p->shape[i].n;
        validation[i] = n[AM_VALIDATION];
        evaluated[i] = am_plan_most(n[AM_TRAIN], am_plan_most(n[AM_VALIDATION], n[AM_TEST]));
    }
    AM_KEEP(
        am_twins_need_of(&p->plain.net, p->ops, &p->recipe->twin, T, validation, evaluated, out));
    free(validation);
    free(evaluated);
    return rc;
}

/* Samples are evaluated with `reals` of trunks beside twins and what expands them. */
static int twin_evaluation(const am_planner *p, int64_t reals, const am_twins_need *twins,
                           am_train_need *out)
{
    return am_plan_offer_evaluation(p, reals + (twins->kept + twins->evaluate) / p->real, 0, out);
}

/* Twins and router are made, and evaluated. */
static int twin_steps(const am_planner *p, int64_t reals, const am_twins_need *twins,
                      am_train_need *out)
{
    am_plan_offer(p, "compress", reals,
                  (am_train_need){.parameters = twins->kept + twins->compress}, out);
    am_plan_offer(p, "route", reals, (am_train_need){.parameters = twins->kept + twins->route},
                  out);
    int rc = am_plan_offer_forward(p, "route", reals + (twins->kept + twins->features) / p->real, 0,
                                   out);
    AM_KEEP(twin_evaluation(p, reals, twins, out));
    return rc;
}

int am_plan_twins_of_models(const am_planner *p, int64_t reals, am_train_need *out)
{
    am_twins_need twins = {0};
    int rc = twin_need(p, &twins);
    AM_KEEP(twin_steps(p, reals, &twins, out));
    return rc;
}

/* ---- the job twin ---- */

int am_plan_twin_phases(const am_planner *p, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    const int64_t P = p->plain.trunk, own = am_plan_most_tasks_of_a_group(p);
    const int64_t reals = 3 * P + own * P + (r->n_tasks + 2) * p->plain.slice;
    am_twins_need twins = {0};
    int rc = twin_need(p, &twins);
    const am_train_need share = {.parameters = 2 * P * p->real +
                                               (r->n_tasks + AM_PLAN_MERGE_EXTRA) *
                                                   (int64_t)AM_CHUNK * (int64_t)sizeof(double) +
                                               p->plain.matrices};
    am_plan_offer(p, "share", reals, share, out);
    AM_KEEP(twin_steps(p, reals, &twins, out));
    return rc;
}

int am_plan_eval_twin_phases(const am_planner *p, am_train_need *out)
{
    am_twins_need twins = {0};
    int rc = twin_need(p, &twins);
    AM_KEEP(twin_evaluation(p, 2 * p->plain.trunk, &twins, out));
    return rc;
}
