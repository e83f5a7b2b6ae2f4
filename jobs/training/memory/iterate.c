/* Phases of iterate. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory/planner.h"

#include <stdlib.h>
#include "jobs/training/iterate/gradients.h"
#include "jobs/training/iterate/model_stats.h"
#include "jobs/training/iterate/plane.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"

/* Trunks and slices of a rank in a group with `own` tasks, between the first merge and the end. */
static int64_t iterate_reals(const am_planner *p, int64_t own)
{
    const int64_t T = p->recipe->n_tasks, P = p->plain.trunk;
    const int64_t slice = p->plain.slice;
    const int64_t sent = own > 0 ? P : 0;
    return (2 + 2 * own) * P + (T + 2) * slice + sent + am_plan_adapted_reals(p, own);
}

/* Likewise before a one-shot merge: after the first one there are its choices, too. */
static int64_t one_shot_reals(const am_planner *p, int64_t own)
{
    const int64_t T = p->recipe->n_tasks, P = p->plain.trunk, slice = p->plain.slice;
    const int64_t merged = p->recipe->one_shot.n_epochs > 1 ? 3 * P + slice : 0;
    return (1 + 2 * own) * P + (T + 1) * slice + (own > 0 ? P : 0) + merged +
           am_plan_adapted_reals(p, own);
}

/* Trunks while the rounds train: the current one, the best of a run, the best of all runs. */
static int64_t chosen_trunks(const am_train_recipe *r)
{
    const am_comparison *c = &r->iterate;
    int alphas = 1;
    for (int m = 0; m < c->n_methods; m++) {
        alphas = am_comparison_alphas(c, &c->method[m]) > 1 ? 2 : alphas;
    }
    return c->n_methods * c->n_epochs > 1                         ? 3
           : am_train_recipe_rounds(r, c->epochs[0]) * alphas > 1 ? 2
                                                                  : 1;
}

/* A task whose gradients are measured: it is trained, and has a full batch in f64 beside it. */
static int gradients_phase(const am_planner *p, const am_plan_call *c, int64_t reals,
                           am_train_need *out)
{
    const am_train_ops *exact = am_train_ops_of(AM_DTYPE_F64);
    const int64_t P = p->plain.trunk, wide = (int64_t)sizeof(double);
    const int64_t parts = p->recipe->gradients.parts;
    am_train_need need;
    int64_t tree = 0, bytes = 0;
    int rc = am_plan_call_need(p, c, &need);
    for (int r = 0; r < c->ranks && rc == AM_OK; r++) {
        rc = am_tree_bytes(parts, P + 1, (int)wide, c->ranks, r, true, AM_TREE_EVERYWHERE, &bytes);
        tree = am_plan_most(tree, bytes);
    }
    AM_KEEP(exact->activation_bytes(&p->plain.net, am_part_units(c->shape->n[AM_TRAIN], parts),
                                    c->shape->classes, true, &bytes));
    need.activations = am_plan_most(need.activations, bytes);
    need.gradients += tree;
    need.parameters +=
        (AM_GRADIENT_VECTORS + 1) * P * wide + am_plan_head_reals(p, c->shape->classes) * wide;
    if (rc == AM_OK) {
        am_plan_offer(p, "gradients", reals, need, out);
    }
    return rc;
}

/* The Gram matrix of all models; origin and axes of their plane beside one that is evaluated. */
static int plane_phase(const am_planner *p, int64_t reals, am_train_need *out)
{
    const int64_t frame = AM_PLANE_VECTORS * p->plain.trunk * (int64_t)sizeof(double);
    const int64_t gram = am_plane_gram_bytes(p->recipe, p->real);
    am_plan_offer(p, "plane", reals, (am_train_need){.parameters = gram}, out);
    return am_plan_offer_evaluation(p, reals + frame / p->real, 0, out);
}

/* Statistics of the models of a group. */
static int model_stats_phase(const am_planner *p, const int *owner, int group, int size,
                             int64_t reals, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    am_net net = {0};
    int rc = am_model_stats_net(&r->model.net, p->shape[0].features, &net);
    for (int i = 0; i < r->n_tasks && rc == AM_OK; i++) {
        const am_dataset_shape *s = &p->shape[i];
        const int64_t half = r->on_validation ? s->n[AM_VALIDATION] / 2 : 0;
        const int64_t n = am_plan_most(s->n[AM_TRAIN], half), limit = r->statistics.samples;
        am_train_need need = {0};
        if (owner[i] == group) {
            rc = am_statistics_bytes(p->ops, &net, &r->stats, limit > 0 && limit < n ? limit : n,
                                     s->classes, size, &need.gradients, &need.activations);
            am_plan_offer(p, "statistics", reals, need, out);
        }
    }
    am_net_free(&net);
    return rc;
}

/* What reading them takes while models are merged: sources, and chunks of Fisher information. */
static int64_t read_stats_bytes(const am_planner *p)
{
    const int64_t each =
        AM_MODEL_STATS_SOURCE + AM_MODEL_STATS_HELD + (int64_t)AM_CHUNK * (int64_t)sizeof(double);
    return am_train_recipe_needs_stats(p->recipe) ? p->recipe->n_tasks * each : 0;
}

static int group_phases(am_planner *p, const int *owner, int group, int size, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    const int64_t P = p->plain.trunk;
    int64_t own = 0;
    int rc = AM_OK;
    for (int i = 0; i < r->n_tasks; i++) {
        own += owner[i] == group;
    }
    const int64_t shared = iterate_reals(p, own);
    const int64_t chosen = chosen_trunks(r);
    for (int i = 0; i < r->n_tasks; i++) {
        const am_plan_call c = {
            am_plan_trained(p), &r->finetune, &p->shape[i], 1, true, false, size, r->on_validation};
        if (owner[i] == group) {
            AM_KEEP(am_plan_offer_call(p, "finetune", shared + chosen * P, &c, out));
        }
    }
    for (int i = 0; i < r->n_tasks && r->gradients.is_given; i++) {
        const am_plan_call c = {&p->plain, &r->finetune, &p->shape[i], 1, true, false, size, false};
        if (owner[i] == group) {
            AM_KEEP(gradients_phase(p, &c, shared, out));
        }
    }
    if (r->plane.is_given) {
        AM_KEEP(plane_phase(p, shared, out));
    }
    if (am_merges_need_stats(r->one_shot.method, r->one_shot.n_methods)) {
        AM_KEEP(model_stats_phase(p, owner, group, size, one_shot_reals(p, own), out));
    }
    if (am_merges_need_stats(r->iterate.method, r->iterate.n_methods)) {
        AM_KEEP(model_stats_phase(p, owner, group, size, shared + chosen * P, out));
    }
    /* The engine has let go of its room when the slices are brought together. */
    const int64_t engine =
        (r->n_tasks + AM_PLAN_MERGE_EXTRA) * (int64_t)AM_CHUNK * (int64_t)sizeof(double) +
        p->plain.matrices + read_stats_bytes(p);
    const am_train_need merge = {.parameters = am_plan_most(P * p->real, engine)};
    am_plan_offer(p, "merge", shared + 2 * P, merge, out);
    AM_KEEP(am_plan_offer_evaluation(p, shared + 2 * P, 0, out));
    if (r->has_twin) {
        AM_KEEP(am_plan_twins_of_models(p, shared + 2 * P, out));
    }
    const int64_t epochs = am_train_recipe_joint_epochs(r);
    if (r->run_joint) {
        const am_plan_call c = {am_plan_trained(p), &r->joint, p->shape, r->n_tasks, true, false,
                                p->ranks,           false};
        const int64_t reals = am_plan_adapted_reals(p, own + 1) - am_plan_adapted_reals(p, own);
        AM_KEEP(am_plan_offer_call(p, "joint", shared + reals + (epochs > 1 ? 3 : 2) * P, &c, out));
    }
    return rc;
}

int am_plan_iterate_phases(am_planner *p, am_train_need *out)
{
    const int T = p->recipe->n_tasks, groups = p->ranks < T ? p->ranks : T;
    int64_t *cost = am_new(T, sizeof *cost, "a plan");
    int *owner = am_new(T, sizeof *owner, "a plan");
    int rc = cost == NULL || owner == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; i < T && rc == AM_OK; i++) {
        cost[i] = p->shape[i].n[AM_TRAIN];
    }
    if (rc == AM_OK) {
        am_part_balance(cost, T, groups, owner);
    }
    for (int g = 0; g < groups && rc == AM_OK; g++) {
        int64_t lo, hi;
        am_part_range(p->ranks, groups, g, &lo, &hi);
        rc = group_phases(p, owner, g, (int)(hi - lo), out);
    }
    free(cost);
    free(owner);
    return rc;
}
