/* What the plans of all jobs are made of: see planner.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/memory/planner.h"

#include "mpi/error.h"
#include "mpi/reduce.h"

enum { ROOM = 12 << 20 }; /* bytes: packing of BLAS, messages, threads, HDF5 */

int64_t am_plan_most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t am_plan_head_reals(const am_planner *p, int64_t classes)
{
    am_param_layout head = {0};
    const int64_t n =
        am_net_head_layout(&p->plain.net, classes, p->ops->dtype, &head) == AM_OK ? head.n : 0;
    am_param_layout_free(&head);
    return n;
}

bool am_plan_has_adapters(const am_planner *p)
{
    return p->recipe->model.lora.r > 0;
}

/* What the calls that train trunks of tasks see. */
const am_plan_net *am_plan_trained(const am_planner *p)
{
    return am_plan_has_adapters(p) ? &p->adapted : &p->plain;
}

/* Reals of `n` trunks with adapters, and of the point at which they are linearised. */
int64_t am_plan_adapted_reals(const am_planner *p, int64_t n)
{
    return (n + (n > 0 && p->recipe->model.linearised ? 1 : 0)) * p->adapted.trunk;
}

/* ---- one call of train_all ---- */

/* Samples of the largest leaf: see am_schedule_rows. */
static int64_t leaf_rows(const am_plan_call *c)
{
    int64_t rows = 0;
    for (int i = 0; i < c->n; i++) {
        const int64_t half = c->on_half ? c->shape[i].n[AM_VALIDATION] / 2 : 0;
        const int64_t n = am_plan_most(c->shape[i].n[AM_TRAIN], half), batch = c->section->batch;
        rows = am_plan_most(rows, batch == 0 || batch > n ? n : batch);
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
static int steps_need(const am_planner *p, const am_plan_call *c, int rank, am_train_need *need)
{
    const am_optim_options *optim = &c->section->optim;
    const bool is_sharded = optim->is_sharded && c->ranks > 1;
    const int64_t trunk = c->with_trunk ? c->on->moved : 0;
    const int64_t leaves = c->section->micro_batches * (c->section->sum_tasks ? c->n : 1);
    const int arrays = p->ops->state_arrays(optim);
    int64_t end = trunk, at = trunk, lo = 0, kept = 0;
    for (int i = 0; i < c->n && c->with_head; i++) {
        const int64_t n = am_plan_head_reals(p, c->shape[i].classes);
        at = c->section->sum_tasks ? end : trunk;
        end = am_plan_most(end, at + n);
    }
    const int64_t n = end + 1;
    int64_t hi = n;
    if (is_sharded) {
        am_tree_part(n, c->ranks, rank, &lo, &hi);
    }
    kept = held(0, trunk, lo, hi);
    at = trunk;
    for (int i = 0; i < c->n && c->with_head; i++) {
        const int64_t head = am_plan_head_reals(p, c->shape[i].classes);
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
int am_plan_call_need(const am_planner *p, const am_plan_call *c, am_train_need *need)
{
    int64_t classes = 0;
    int rc = AM_OK;
    for (int i = 0; i < c->n; i++) {
        classes = am_plan_most(classes, c->shape[i].classes);
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
static int64_t held_bytes(const am_planner *p, const am_dataset_shape *shape, int index)
{
    const int64_t whole = am_dataset_shape_bytes(shape), *room = p->recipe->room;
    return room != NULL && room[index] < whole ? room[index] : whole;
}

static int64_t data_bytes(const am_planner *p)
{
    int64_t bytes = 0;
    for (int i = 0; i < p->recipe->n_tasks; i++) {
        bytes += held_bytes(p, &p->shape[i], i);
    }
    return bytes;
}

/* Offer a phase: `need` is what its work takes, beside data and `reals` reals of parameters. */
void am_plan_offer(const am_planner *p, const char *phase, int64_t reals, am_train_need need,
                   am_train_need *out)
{
    need.phase = phase;
    for (int i = 0; i < p->recipe->n_tasks; i++) {
        reals += am_plan_head_reals(p, p->shape[i].classes);
    }
    need.data += data_bytes(p);
    need.parameters += reals * p->real;
    need.peak = p->process->now + need.data + need.parameters + need.gradients + need.optimizer +
                need.activations + ROOM;
    need.peak = am_plan_most(need.peak, p->process->peak);
    if (need.peak > out->peak) {
        *out = need;
    }
}

int am_plan_offer_call(const am_planner *p, const char *phase, int64_t reals, const am_plan_call *c,
                       am_train_need *out)
{
    am_train_need need;
    const int rc = am_plan_call_need(p, c, &need);
    if (rc == AM_OK) {
        am_plan_offer(p, phase, reals, need, out);
    }
    return rc;
}

/* Base and heads, where every job begins. */
int am_plan_prepare_phases(am_planner *p, am_train_need *out)
{
    const am_train_recipe *r = p->recipe;
    int rc = AM_OK;
    if (p->pretraining.n[AM_TRAIN] > 0 && r->base_checkpoint == NULL) {
        const am_plan_call c = {&p->plain, &r->base, &p->pretraining, 1,
                                true,      true,     p->ranks,        false};
        am_train_need need;
        rc = am_plan_call_need(p, &c, &need);
        need.data = held_bytes(p, &p->pretraining, r->n_tasks);
        need.parameters += am_plan_head_reals(p, p->pretraining.classes) * p->real;
        am_plan_offer(p, "pretrain", p->plain.trunk, need, out);
    }
    for (int i = 0; i < r->n_tasks && r->heads_checkpoint == NULL && !r->heads_random; i++) {
        const am_plan_call c = {&p->plain, &r->heads, &p->shape[i], 1, false, true, 1, false};
        AM_KEEP(am_plan_offer_call(p, "probe", p->plain.trunk, &c, out));
    }
    return rc;
}

int am_plan_offer_forward(const am_planner *p, const char *phase, int64_t reals, int64_t state,
                          am_train_need *out)
{
    int rc = AM_OK;
    for (int i = 0; i < p->recipe->n_tasks && rc == AM_OK; i++) {
        const am_dataset_shape *s = &p->shape[i];
        const int64_t n = am_plan_most(s->n[AM_VALIDATION], s->n[AM_TEST]);
        am_train_need need = {.optimizer = state};
        rc = p->ops->activation_bytes(&p->plain.net, n < AM_EVAL_GROUP ? n : AM_EVAL_GROUP,
                                      s->classes, false, &need.activations);
        am_plan_offer(p, phase, reals, need, out);
    }
    return rc;
}

int am_plan_offer_evaluation(const am_planner *p, int64_t reals, int64_t state, am_train_need *out)
{
    return am_plan_offer_forward(p, "evaluate", reals, state, out);
}

int64_t am_plan_most_tasks_of_a_group(const am_planner *p)
{
    const int T = p->recipe->n_tasks, groups = p->ranks < T ? p->ranks : T;
    return T - groups + 1;
}
