/* Memory of training: see memory.h. What counts is what is touched: room that a job takes but does
 * not write to yet is none of the process's.
 *
 * With adapters, every task that has been finetuned keeps a trunk with them, and so has the
 * training of all tasks; what moves are these.
 *
 *   phase      trunks beside the base                             and
 *
 *   pretrain                                                      the data set, a call of train_all
 *   probe                                                         a call
 *   train      the model                                          a call, its state
 *   finetune   merged, one or two a task, the chosen one, slices  a call in a group
 *   statistics the same                                           a leaf of stats in a group
 *   joint      and the final one                                  a call of all ranks
 *   gradients  and six in f64                                     a call in a group, a full batch
 *   plane      and three in f64                                   an evaluation; a Gram matrix
 *   descent    those of the sweep (solver/theory), Lanczos'       a gradient or a product of parts
 *   spectra    the end, Lanczos'                                  the same
 *   load       the model twice                                    none
 *   statistics                                                    a leaf of stats
 *   match      two in f64                                         sums of stats, similarities
 *   share      base, merged, shared, two a task, slices           a merge
 *   compress   the same, twins                                    a trunk, a factorisation
 *   route      the same                                           the router and its features
 *   average    base, merged, final, two a task, slices, one       a trunk in f64
 *   layers     the same                                           statistics, sums of Gram matrices
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory.h"

#include <stdlib.h>
#include "io/file.h"
#include "jobs/training/iterate/gradients.h"
#include "jobs/training/iterate/model_stats.h"
#include "jobs/training/iterate/plane.h"
#include "jobs/training/model_pool.h"
#include "jobs/training/regmean/regmean.h"
#include "jobs/training/twin/twin.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "solver/merge/dense.h"
#include "solver/theory/spectrum.h"
#include "solver/theory/sweep.h"

enum {
    ROOM = 12 << 20, /* bytes: packing of BLAS, messages, threads, HDF5 */
    MERGE_EXTRA = 3  /* chunks of doubles of the engine beside one a model */
};

/* A network and the reals of its trunk: all, and those that are not frozen. */
typedef struct shaped {
    am_net net; /* owned */
    int64_t trunk, moved;
    int64_t slice;    /* the largest rank's, for merges */
    int64_t matrices; /* bytes of methods that merge them */
} shaped;

typedef struct planner {
    const am_train_recipe *recipe;
    const am_train_ops *ops;
    shaped plain, adapted; /* adapted: all 0 without adapters */
    int ranks;
    int64_t real;                 /* bytes */
    am_dataset_shape *shape;      /* [tasks] owned */
    am_dataset_shape pretraining; /* n is 0 without one */
    const am_process *process;
} planner;

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t head_reals(const planner *p, int64_t classes)
{
    am_param_layout head = {0};
    const int64_t n =
        am_net_head_layout(&p->plain.net, classes, p->ops->dtype, &head) == AM_OK ? head.n : 0;
    am_param_layout_free(&head);
    return n;
}

static bool has_adapters(const planner *p)
{
    return p->recipe->model.lora.r > 0;
}

/* What the calls that train trunks of tasks see. */
static const shaped *trained(const planner *p)
{
    return has_adapters(p) ? &p->adapted : &p->plain;
}

/* Reals of `n` trunks with adapters, and of the point at which they are linearised. */
static int64_t adapted_reals(const planner *p, int64_t n)
{
    return (n + (n > 0 && p->recipe->model.linearised ? 1 : 0)) * p->adapted.trunk;
}

/* ---- one call of train_all ---- */

typedef struct call {
    const shaped *on;
    const am_train_section *section;
    const am_dataset_shape *shape; /* [n] */
    int n;
    bool with_trunk, with_head;
    int ranks;    /* that share it */
    bool on_half; /* at times it trains on half of the validation samples instead */
} call;

/* Samples of the largest leaf: see am_schedule_rows. */
static int64_t leaf_rows(const call *c)
{
    int64_t rows = 0;
    for (int i = 0; i < c->n; i++) {
        const int64_t half = c->on_half ? c->shape[i].n[AM_VALIDATION] / 2 : 0;
        const int64_t n = most(c->shape[i].n[AM_TRAIN], half), batch = c->section->batch;
        rows = most(rows, batch == 0 || batch > n ? n : batch);
    }
    return (rows + c->section->micro_batches - 1) / c->section->micro_batches;
}

/* Elements of [0, n) from `at` on that a rank holds the state of. */
static int64_t held(int64_t at, int64_t n, int64_t lo, int64_t hi)
{
    const int64_t from = lo > at ? lo : at, to = hi < at + n ? hi : at + n;
    return to > from ? to - from : 0;
}

/* Gradients and state of rank `rank`. */
static int steps_need(const planner *p, const call *c, int rank, am_train_need *need)
{
    const am_optim_options *optim = &c->section->optim;
    const bool is_sharded = optim->is_sharded && c->ranks > 1;
    const int64_t trunk = c->with_trunk ? c->on->moved : 0;
    const int64_t leaves = c->section->micro_batches * (c->section->sum_tasks ? c->n : 1);
    const int arrays = p->ops->state_arrays(optim);
    int64_t end = trunk, at = trunk, lo = 0, kept = 0;
    for (int i = 0; i < c->n && c->with_head; i++) {
        const int64_t n = head_reals(p, c->shape[i].classes);
        at = c->section->sum_tasks ? end : trunk;
        end = most(end, at + n);
    }
    const int64_t n = end + 1;
    int64_t hi = n;
    if (is_sharded) {
        am_tree_part(n, c->ranks, rank, &lo, &hi);
    }
    kept = held(0, trunk, lo, hi);
    at = trunk;
    for (int i = 0; i < c->n && c->with_head; i++) {
        const int64_t head = head_reals(p, c->shape[i].classes);
        kept += held(at, head, lo, hi);
        at += c->section->sum_tasks ? head : 0;
    }
    need->optimizer = arrays * kept * p->real;
    if (c->ranks == 1 && leaves == 1) {
        need->gradients = n * p->real;
        return AM_OK;
    }
    return am_tree_bytes(leaves, n, (int)p->real, c->ranks, rank, true,
                         is_sharded                 ? AM_TREE_PARTS
                         : p->ops->is_direct(optim) ? AM_TREE_EVERYWHERE
                                                    : AM_TREE_ROOT,
                         &need->gradients);
}

/* What a call takes on its largest rank. */
static int call_need(const planner *p, const call *c, am_train_need *need)
{
    int64_t classes = 0;
    int rc = AM_OK;
    for (int i = 0; i < c->n; i++) {
        classes = most(classes, c->shape[i].classes);
    }
    *need = (am_train_need){0};
    for (int r = 0; r < c->ranks && rc == AM_OK; r++) {
        am_train_need one = {0};
        rc = steps_need(p, c, r, &one);
        if (one.gradients + one.optimizer > need->gradients + need->optimizer) {
            *need = one;
        }
    }
    AM_KEEP(p->ops->activation_bytes(&c->on->net, leaf_rows(c), classes, true, &need->activations));
    if (p->recipe->divergence.rollbacks > 0 && c->with_trunk) {
        need->parameters += c->on->moved * p->real; /* a copy to go back to */
    }
    return rc;
}

/* ---- phases ---- */

/* Of a data set on a rank. index n_tasks: the one to pretrain on. */
static int64_t held_bytes(const planner *p, const am_dataset_shape *shape, int index)
{
    const int64_t whole = am_dataset_shape_bytes(shape), *room = p->recipe->room;
    return room != NULL && room[index] < whole ? room[index] : whole;
}

static int64_t data_bytes(const planner *p)
{
    int64_t bytes = 0;
    for (int i = 0; i < p->recipe->n_tasks; i++) {
        bytes += held_bytes(p, &p->shape[i], i);
    }
    return bytes;
}

/* Offer a phase: `need` is what its work takes, beside data and `reals` reals of parameters. */
static void offer(const planner *p, const char *phase, int64_t reals, am_train_need need,
                  am_train_need *out)
{
    need.phase = phase;
    for (int i = 0; i < p->recipe->n_tasks; i++) {
        reals += head_reals(p, p->shape[i].classes);
    }
    need.data += data_bytes(p);
    need.parameters += reals * p->real;
    need.peak = p->process->now + need.data + need.parameters + need.gradients + need.optimizer +
                need.activations + ROOM;
    need.peak = most(need.peak, p->process->peak);
    if (need.peak > out->peak) {
        *out = need;
    }
}

static int offer_call(const planner *p, const char *phase, int64_t reals, const call *c,
                      am_train_need *out)
{
    am_train_need need;
    const int rc = call_need(p, c, &need);
    if (rc == AM_OK) {
        offer(p, phase, reals, need, out);
    }
    return rc;
}

/* Base and heads, where every job begins. */
static int prepare_phases(planner *p, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    int rc = AM_OK;
    if (p->pretraining.n[AM_TRAIN] > 0 && r->base_checkpoint == NULL) {
        const call c = {&p->plain, &r->base, &p->pretraining, 1, true, true, p->ranks, false};
        am_train_need need;
        rc = call_need(p, &c, &need);
        need.data = held_bytes(p, &p->pretraining, r->n_tasks);
        need.parameters += head_reals(p, p->pretraining.classes) * p->real;
        offer(p, "pretrain", p->plain.trunk, need, out);
    }
    for (int i = 0; i < r->n_tasks && r->heads_checkpoint == NULL && !r->heads_random; i++) {
        const call c = {&p->plain, &r->heads, &p->shape[i], 1, false, true, 1, false};
        AM_KEEP(offer_call(p, "probe", p->plain.trunk, &c, out));
    }
    return rc;
}

static int offer_forward(const planner *p, const char *phase, int64_t reals, int64_t state,
                         am_train_need *out)
{
    int rc = AM_OK;
    for (int i = 0; i < p->recipe->n_tasks && rc == AM_OK; i++) {
        const am_dataset_shape *s = &p->shape[i];
        const int64_t n = most(s->n[AM_VALIDATION], s->n[AM_TEST]);
        am_train_need need = {.optimizer = state};
        rc = p->ops->activation_bytes(&p->plain.net, n < AM_EVAL_GROUP ? n : AM_EVAL_GROUP,
                                      s->classes, false, &need.activations);
        offer(p, phase, reals, need, out);
    }
    return rc;
}

static int offer_evaluation(const planner *p, int64_t reals, int64_t state, am_train_need *out)
{
    return offer_forward(p, "evaluate", reals, state, out);
}

static int train_phases(planner *p, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    const int64_t reals = 2 * p->plain.trunk + adapted_reals(p, 1);
    const call c = {trained(p), r->n_tasks == 1 ? &r->finetune : &r->joint,
                    p->shape,   r->n_tasks,
                    true,       false,
                    p->ranks,   false};
    am_train_need need;
    int rc = call_need(p, &c, &need);
    need.parameters = 0; /* the session goes back to a file */
    offer(p, "train", reals, need, out);
    AM_KEEP(offer_evaluation(p, reals, need.optimizer, out));
    return rc;
}

/* Trunks and slices of a rank in a group with `own` tasks, between the first merge and the end. */
static int64_t iterate_reals(const planner *p, int64_t own)
{
    const int64_t T = p->recipe->n_tasks, P = p->plain.trunk;
    const int64_t slice = p->plain.slice;
    const int64_t sent = own > 0 ? P : 0;
    return (2 + 2 * own) * P + (T + 2) * slice + sent + adapted_reals(p, own);
}

/* Likewise before a one-shot merge: after the first one there are its choices, too. */
static int64_t one_shot_reals(const planner *p, int64_t own)
{
    const int64_t T = p->recipe->n_tasks, P = p->plain.trunk, slice = p->plain.slice;
    const int64_t merged = p->recipe->one_shot.n_epochs > 1 ? 3 * P + slice : 0;
    return (1 + 2 * own) * P + (T + 1) * slice + (own > 0 ? P : 0) + merged + adapted_reals(p, own);
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
static int gradients_phase(const planner *p, const call *c, int64_t reals, am_train_need *out)
{
    const am_train_ops *exact = am_train_ops_of(AM_DTYPE_F64);
    const int64_t P = p->plain.trunk, wide = (int64_t)sizeof(double);
    const int64_t parts = p->recipe->gradients.parts;
    am_train_need need;
    int64_t tree = 0, bytes = 0;
    int rc = call_need(p, c, &need);
    for (int r = 0; r < c->ranks && rc == AM_OK; r++) {
        rc = am_tree_bytes(parts, P + 1, (int)wide, c->ranks, r, true, AM_TREE_EVERYWHERE, &bytes);
        tree = most(tree, bytes);
    }
    AM_KEEP(exact->activation_bytes(&p->plain.net, am_part_units(c->shape->n[AM_TRAIN], parts),
                                    c->shape->classes, true, &bytes));
    need.activations = most(need.activations, bytes);
    need.gradients += tree;
    need.parameters +=
        (AM_GRADIENT_VECTORS + 1) * P * wide + head_reals(p, c->shape->classes) * wide;
    if (rc == AM_OK) {
        offer(p, "gradients", reals, need, out);
    }
    return rc;
}

/* The Gram matrix of all models; origin and axes of their plane beside one that is evaluated. */
static int plane_phase(const planner *p, int64_t reals, am_train_need *out)
{
    const int64_t frame = AM_PLANE_VECTORS * p->plain.trunk * (int64_t)sizeof(double);
    const int64_t gram = am_plane_gram_bytes(p->recipe, p->real);
    offer(p, "plane", reals, (am_train_need){.parameters = gram}, out);
    return offer_evaluation(p, reals + frame / p->real, 0, out);
}

/* ---- twins ---- */

static int twin_need(const planner *p, am_twins_need *out)
{
    const int T = p->recipe->n_tasks;
    int64_t *validation = am_new(T, sizeof *validation, "a plan");
    int64_t *evaluated = am_new(T, sizeof *evaluated, "a plan");
    int rc = validation == NULL || evaluated == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; rc == AM_OK && i < T; i++) {
        const int64_t *n = p->shape[i].n;
        validation[i] = n[AM_VALIDATION];
        evaluated[i] = most(n[AM_TRAIN], most(n[AM_VALIDATION], n[AM_TEST]));
    }
    AM_KEEP(
        am_twins_need_of(&p->plain.net, p->ops, &p->recipe->twin, T, validation, evaluated, out));
    free(validation);
    free(evaluated);
    return rc;
}

/* Samples are evaluated with `reals` of trunks beside twins and what expands them. */
static int twin_evaluation(const planner *p, int64_t reals, const am_twins_need *twins,
                           am_train_need *out)
{
    return offer_evaluation(p, reals + (twins->kept + twins->evaluate) / p->real, 0, out);
}

/* Twins and router are made, and evaluated. */
static int twin_steps(const planner *p, int64_t reals, const am_twins_need *twins,
                      am_train_need *out)
{
    offer(p, "compress", reals, (am_train_need){.parameters = twins->kept + twins->compress}, out);
    offer(p, "route", reals, (am_train_need){.parameters = twins->kept + twins->route}, out);
    int rc = offer_forward(p, "route", reals + (twins->kept + twins->features) / p->real, 0, out);
    AM_KEEP(twin_evaluation(p, reals, twins, out));
    return rc;
}

static int twins_of_models(const planner *p, int64_t reals, am_train_need *out)
{
    am_twins_need twins = {0};
    int rc = twin_need(p, &twins);
    AM_KEEP(twin_steps(p, reals, &twins, out));
    return rc;
}

/* Statistics of the models of a group. */
static int model_stats_phase(const planner *p, const int *owner, int group, int size, int64_t reals,
                             am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    am_net net = {0};
    int rc = am_model_stats_net(&r->model.net, p->shape[0].features, &net);
    for (int i = 0; i < r->n_tasks && rc == AM_OK; i++) {
        const am_dataset_shape *s = &p->shape[i];
        const int64_t half = r->on_validation ? s->n[AM_VALIDATION] / 2 : 0;
        const int64_t n = most(s->n[AM_TRAIN], half), limit = r->statistics.samples;
        am_train_need need = {0};
        if (owner[i] == group) {
            rc = am_statistics_bytes(p->ops, &net, &r->stats, limit > 0 && limit < n ? limit : n,
                                     s->classes, size, &need.gradients, &need.activations);
            offer(p, "statistics", reals, need, out);
        }
    }
    am_net_free(&net);
    return rc;
}

/* What reading them takes while models are merged: sources, and chunks of Fisher information. */
static int64_t read_stats_bytes(const planner *p)
{
    const int64_t each =
        AM_MODEL_STATS_SOURCE + AM_MODEL_STATS_HELD + (int64_t)AM_CHUNK * (int64_t)sizeof(double);
    return am_train_recipe_needs_stats(p->recipe) ? p->recipe->n_tasks * each : 0;
}

static int group_phases(planner *p, const int *owner, int group, int size, am_train_need *out)
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
        const call c = {trained(p), &r->finetune, &p->shape[i], 1,
                        true,       false,        size,         r->on_validation};
        if (owner[i] == group) {
            AM_KEEP(offer_call(p, "finetune", shared + chosen * P, &c, out));
        }
    }
    for (int i = 0; i < r->n_tasks && r->gradients.is_given; i++) {
        const call c = {&p->plain, &r->finetune, &p->shape[i], 1, true, false, size, false};
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
        (r->n_tasks + MERGE_EXTRA) * (int64_t)AM_CHUNK * (int64_t)sizeof(double) +
        p->plain.matrices + read_stats_bytes(p);
    const am_train_need merge = {.parameters = most(P * p->real, engine)};
    offer(p, "merge", shared + 2 * P, merge, out);
    AM_KEEP(offer_evaluation(p, shared + 2 * P, 0, out));
    if (r->has_twin) {
        AM_KEEP(twins_of_models(p, shared + 2 * P, out));
    }
    const int64_t epochs = am_train_recipe_joint_epochs(r);
    if (r->run_joint) {
        const call c = {trained(p), &r->joint, p->shape, r->n_tasks, true, false, p->ranks, false};
        const int64_t reals = adapted_reals(p, own + 1) - adapted_reals(p, own);
        AM_KEEP(offer_call(p, "joint", shared + reals + (epochs > 1 ? 3 : 2) * P, &c, out));
    }
    return rc;
}

static int iterate_phases(planner *p, am_train_need *out)
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

/* ---- theory ---- */

/* Gradients and products of the parts of all tasks: activations of the largest, and their sum. */
static int part_need(const planner *p, am_train_need *gradient, am_train_need *product)
{
    const am_theory_section *section = &p->recipe->theory;
    int rc = AM_OK;
    *gradient = *product = (am_train_need){0};
    for (int r = 0; r < p->ranks && rc == AM_OK; r++) {
        int64_t bytes = 0;
        rc = am_tree_bytes(section->parts, p->plain.trunk + 1, (int)p->real, p->ranks, r, true,
                           AM_TREE_EVERYWHERE, &bytes);
        gradient->gradients = most(gradient->gradients, bytes);
    }
    product->gradients = gradient->gradients;
    for (int i = 0; i < section->tasks[section->n_tasks - 1] && rc == AM_OK; i++) {
        const am_dataset_shape *shape = &p->shape[i];
        const int64_t rows = am_part_units(shape->n[AM_TRAIN], section->parts);
        int64_t bytes = 0;
        rc = p->ops->activation_bytes(&p->plain.net, rows, shape->classes, true, &bytes);
        gradient->activations = most(gradient->activations, bytes);
        AM_KEEP(p->ops->hvp_bytes(&p->plain.net, rows, shape->classes, &bytes));
        product->activations = most(product->activations, bytes);
    }
    return rc;
}

/* Norms and spectra count as if they needed all the products that they may make. */
static int theory_phases(planner *p, am_train_need *out)
{
    const am_theory_section *section = &p->recipe->theory;
    const int64_t P = p->plain.trunk;
    const int64_t sweep =
        P + P * am_theory_measure_vectors(section->tasks[section->n_tasks - 1], section->n_k,
                                          section->eigen != AM_THEORY_EIGEN_NO);
    am_train_need gradient, product;
    const int rc = part_need(p, &gradient, &product);
    if (rc != AM_OK) {
        return rc;
    }
    offer(p, "descent", sweep, gradient, out);
    if (section->k[section->n_k - 1] > 1) {
        product.parameters =
            section->eigen != AM_THEORY_EIGEN_NO ? am_theory_hessian_norm_bytes(P) : 0;
        offer(p, "descent", sweep, product, out);
    }
    if (section->spectrum > 0) {
        const int wanted = section->spectrum < P ? section->spectrum : (int)P;
        product.parameters = am_theory_spectrum_bytes(P, wanted);
        offer(p, "spectra", 2 * P, product, out);
    }
    return AM_OK;
}

/* ---- stats ---- */

static int stats_phases(const planner *p, am_train_need *out)
{
    const int64_t P = p->plain.trunk;
    int rc = AM_OK;
    offer(p, "load", 2 * P, (am_train_need){0}, out);
    for (int i = 0; i < p->recipe->n_tasks && rc == AM_OK; i++) {
        am_train_need need = {0};
        rc = am_statistics_bytes(p->ops, &p->plain.net, &p->recipe->stats,
                                 p->shape[i].n[p->recipe->stats_split], p->shape[i].classes,
                                 p->ranks, &need.gradients, &need.activations);
        offer(p, "statistics", P, need, out);
    }
    return rc;
}

/* ---- align, pleas ---- */

/* Both networks in f64 all the time; in the arithmetic of the recipe too, while samples are seen.
 */
static int align_phases(const planner *p, am_train_need *out)
{
    const int64_t P = p->plain.trunk, wide = (int64_t)sizeof(double);
    int64_t both = P, sums = 0;
    int rc = AM_OK;
    for (int i = 0; i < p->recipe->n_tasks; i++) {
        both += head_reals(p, p->shape[i].classes);
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
        offer(p, "statistics", 2 * P, need, out);
    }
    const am_train_need match = {.parameters = both + p->recipe->align_bytes, .gradients = sums};
    offer(p, "match", 0, match, out);
    return rc;
}

/* ---- the job twin ---- */

/* The largest group's tasks, in one group each where there are ranks enough. */
static int64_t most_tasks_of_a_group(const planner *p)
{
    const int T = p->recipe->n_tasks, groups = p->ranks < T ? p->ranks : T;
    return T - groups + 1;
}

static int twin_phases(const planner *p, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    const int64_t P = p->plain.trunk, own = most_tasks_of_a_group(p);
    const int64_t reals = 3 * P + own * P + (r->n_tasks + 2) * p->plain.slice;
    am_twins_need twins = {0};
    int rc = twin_need(p, &twins);
    const am_train_need share = {.parameters = 2 * P * p->real +
                                               (r->n_tasks + MERGE_EXTRA) * (int64_t)AM_CHUNK *
                                                   (int64_t)sizeof(double) +
                                               p->plain.matrices};
    offer(p, "share", reals, share, out);
    AM_KEEP(twin_steps(p, reals, &twins, out));
    return rc;
}

static int eval_twin_phases(const planner *p, am_train_need *out)
{
    am_twins_need twins = {0};
    int rc = twin_need(p, &twins);
    AM_KEEP(twin_evaluation(p, 2 * p->plain.trunk, &twins, out));
    return rc;
}

/* ---- RegMean++ ---- */

static int regmean_phases(const planner *p, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    const int64_t P = p->plain.trunk;
    const int64_t reals =
        4 * P + 2 * most_tasks_of_a_group(p) * P + (r->n_tasks + 2) * p->plain.slice;
    int rc = AM_OK;
    offer(p, "average", reals, (am_train_need){.parameters = P * (int64_t)sizeof(double)}, out);
    for (int i = 0; i < r->n_tasks && rc == AM_OK; i++) {
        am_train_need need = {0};
        rc = am_regmean_need(&p->plain.net, p->ops, &r->regmean, p->ranks,
                             p->shape[i].n[r->regmean.split], p->shape[i].classes, &need.gradients,
                             &need.activations);
        offer(p, "layers", reals, need, out);
    }
    AM_KEEP(offer_evaluation(p, reals, 0, out));
    return rc;
}

/* ---- the plan ---- */

static int read_shape_all(MPI_Comm comm, const am_train_recipe *r, const char *task,
                          const int64_t *limit, am_dataset_shape *out)
{
    char *path = am_text("%s/%s.h5", r->folder, task);
    int rc = path == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(comm);
    AM_TRY(am_dataset_shape_all(comm, path, limit, out));
cleanup:
    free(path);
    return rc;
}

static int largest_slice(const planner *p, const am_tensor_table *tensors, int64_t *out)
{
    const int64_t unit = am_model_pool_unit(tensors, am_train_recipe_on_wholes(p->recipe));
    am_slices slices = {0};
    const int rc = am_slices_make(tensors, unit, p->ranks, &slices);
    *out = 0;
    for (int r = 0; r < p->ranks && rc == AM_OK; r++) {
        int64_t elements = 0;
        for (int64_t i = slices.first[r]; i < slices.first[r + 1]; i++) {
            elements += slices.spans[i].hi - slices.spans[i].lo;
        }
        *out = most(*out, elements);
    }
    am_slices_free(&slices);
    return rc;
}

/* The most that a method of a comparison takes for a matrix. */
static int64_t matrices_of(const planner *p, const am_comparison *comparison,
                           const am_tensor_table *tensors)
{
    int64_t bytes = 0;
    for (int i = 0; i < comparison->n_methods; i++) {
        const am_train_merge *merge = &comparison->method[i];
        for (int v = 0; v < am_train_merge_variants(merge); v++) {
            const am_train_merge one = am_train_merge_variant(merge, v);
            bytes = most(
                bytes, am_method_matrix_bytes(one.method, tensors, p->recipe->n_tasks, one.param));
        }
    }
    return bytes;
}

static int measure(const planner *p, shaped *s)
{
    static const char somewhere; /* any anchor: only whether there is one counts */
    am_param_layout trunk = {0}, moved = {0};
    int rc = am_net_trunk_layout(&s->net, p->ops->dtype, &trunk);
    AM_KEEP(am_param_layout_part(&trunk, &moved));
    AM_KEEP(largest_slice(p, &trunk.tensors, &s->slice));
    if (rc == AM_OK) {
        s->matrices = most(matrices_of(p, &p->recipe->one_shot, &trunk.tensors),
                           matrices_of(p, &p->recipe->iterate, &trunk.tensors));
        s->matrices =
            most(s->matrices, am_method_matrix_bytes(p->recipe->merge.method, &trunk.tensors,
                                                     p->recipe->n_tasks, p->recipe->merge.param));
    }
    s->trunk = trunk.n;
    s->moved = moved.n;
    s->net.anchor = p->recipe->model.linearised ? &somewhere : NULL;
    am_param_layout_free(&trunk);
    am_param_layout_free(&moved);
    return rc;
}

static int shape_nets(planner *p)
{
    int rc = am_net_copy(&p->recipe->model.net, &p->plain.net);
    AM_KEEP(am_net_shape(&p->plain.net, p->shape[0].features));
    if (rc == AM_OK && has_adapters(p)) {
        rc = am_lora_adapt(&p->plain.net, &p->recipe->model.lora, &p->adapted.net);
        AM_KEEP(measure(p, &p->adapted));
    }
    AM_KEEP(measure(p, &p->plain));
    return rc;
}

int am_train_plan_all(MPI_Comm comm, const am_train_recipe *recipe, am_train_job job, int ranks,
                      const am_process *process, am_train_need *out, am_dataset_shape *sets)
{
    const int64_t no_limit[AM_SPLITS] = {0};
    planner p = {.recipe = recipe,
                 .ops = am_train_ops_of(recipe->dtype),
                 .ranks = ranks,
                 .real = am_dtype_bytes(recipe->dtype),
                 .process = process};
    *out = (am_train_need){0};
    p.shape = am_new(recipe->n_tasks, sizeof *p.shape, "a plan");
    int rc = p.shape == NULL ? AM_E_NOMEM : AM_OK;
    if (p.ops == NULL) {
        AM_KEEP(am_fail(AM_E_RECIPE, "cannot train in dtype %s: use float32 or float64",
                        am_dtype_name(recipe->dtype)));
    }
    AM_AGREE(comm);
    for (int i = 0; i < recipe->n_tasks; i++) {
        AM_TRY(read_shape_all(comm, recipe, recipe->task[i], recipe->limit, &p.shape[i]));
    }
    if (recipe->base_task != NULL) {
        AM_TRY(read_shape_all(comm, recipe, recipe->base_task, no_limit, &p.pretraining));
    }
    for (int i = 0; sets != NULL && i < recipe->n_tasks; i++) {
        sets[i] = p.shape[i];
    }
    if (sets != NULL && recipe->base_task != NULL) {
        sets[recipe->n_tasks] = p.pretraining;
    }
    rc = shape_nets(&p);
    const bool is_prepared =
        job == AM_JOB_EVAL || job == AM_JOB_STATS || job == AM_JOB_ALIGN || job == AM_JOB_EVAL_TWIN;
    AM_KEEP(is_prepared ? AM_OK : prepare_phases(&p, out));
    AM_KEEP(job == AM_JOB_TRAIN       ? train_phases(&p, out)
            : job == AM_JOB_ITERATE   ? iterate_phases(&p, out)
            : job == AM_JOB_THEORY    ? theory_phases(&p, out)
            : job == AM_JOB_STATS     ? stats_phases(&p, out)
            : job == AM_JOB_ALIGN     ? align_phases(&p, out)
            : job == AM_JOB_TWIN      ? twin_phases(&p, out)
            : job == AM_JOB_EVAL_TWIN ? eval_twin_phases(&p, out)
            : job == AM_JOB_REGMEAN   ? regmean_phases(&p, out)
                                      : offer_evaluation(&p, p.plain.trunk, 0, out));
    AM_AGREE(comm);
cleanup:
    am_net_free(&p.plain.net);
    am_net_free(&p.adapted.net);
    free(p.shape);
    return rc;
}

int am_train_report_memory_all(MPI_Comm comm)
{
    am_process process = {0};
    am_json json = {0};
    int rc = AM_OK;
    AM_TRY(am_memory_process_all(comm, &process));
    am_json_int(&json, "peak_bytes", process.peak);
    am_event("memory", &json);
cleanup:
    am_json_free(&json);
    return rc;
}
