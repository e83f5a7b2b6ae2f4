/* Phases of stats, align and pleas. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory/planner.h"

#include "mpi/error.h"
#include "mpi/reduce.h"

/* ---- stats ---- */

int am_plan_stats_phases(const am_planner *p, am_train_need *out)
{
    const int64_t P = p->plain.trunk;
    int rc = AM_OK;
    am_plan_offer(p, "load", 2 * P, (am_train_need){0}, out);
    for (int i = 0; i < p->recipe->n_tasks && rc == AM_OK; i++) {
        am_train_need need = {0};
        rc = am_statistics_bytes(p->ops, &p->plain.net, &p->recipe->stats,
                                 p->shape[i].n[p->recipe->stats_split], p->shape[i].classes,
                                 p->ranks, &need.gradients, &need.activations);
        am_plan_offer(p, "statistics", P, need, out);
    }
    return rc;
}

/* ---- align, pleas ---- */

/* Both networks in f64 all the time; in the arithmetic of the recipe too, while samples are seen.
 */
int am_plan_align_phases(const am_planner *p, am_train_need *out)
{
    const int64_t P = p->plain.trunk, wide = (int64_t)sizeof(double);
    int64_t both = P, sums = 0;
    int rc = AM_OK;
    for (int i = 0; i < p->recipe->n_tasks; i++) {
        both += am_plan_head_reals(p, p->shape[i].classes);
    }
    both *= 2 * wide;
    if (p->recipe->stats.what.pair != NULL) {
        am_stats_layout layout = {0};
        rc = am_stats_layout_make(&p->plain.net, &p->recipe->stats.what, &layout);
        sums = layout.n * wide;
        am_stats_layout_free(&layout);
    }
    for (int i = 0; i < p->recipe->n_tasks && p->recipe->stats.what.pair != NULL && rc == AM_OK;
         i++) {
        am_train_need need = {.parameters = both};
        rc = am_statistics_bytes(p->ops, &p->plain.net, &p->recipe->stats,
                                 p->shape[i].n[p->recipe->stats_split], p->shape[i].classes,
                                 p->ranks, &need.gradients, &need.activations);
        need.gradients += sums; /* all of them on every rank, in the end */
        am_plan_offer(p, "statistics", 2 * P, need, out);
    }
    const am_train_need match = {.parameters = both + p->recipe->align_bytes, .gradients = sums};
    am_plan_offer(p, "match", 0, match, out);
    return rc;
}
