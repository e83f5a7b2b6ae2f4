/* Data-parallel training: the loop over steps.
 *
 * The gradient of a step is one vector; every rank ends with the same bits of it and takes the same
 * step, so trunk, heads and optimiser state stay equal without being sent:
 *
 *     | trunk gradient | head gradients | attention |
 *
 * `attention` is not 0 when a rank failed or was asked to stop while it made a leaf. It rides in
 * the sum, and only when it is seen do the ranks agree on a code: a step costs no agreement.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "solver/linalg/blas.h"
#include "solver/training/real_optim.h"
#include "solver/training/real_pass.h"
#include "solver/training/schedule.h"

enum { AM_SWEEP = 4096 }; /* reals of each array at a time in an update: all in the L1 cache */

/* Parameters that take steps together: the trunk or one head. */
typedef struct am_segment {
    real *w;    /* [n] borrowed */
    int64_t n;  /* 0 when frozen */
    int64_t at; /* offset in the gradient vector */
    int64_t steps;
    real *state[AM_OPTIM_MAX_STATES]; /* [n] each */
} am_segment;

typedef struct am_trainer {
    MPI_Comm comm;
    const am_train_options *options;
    am_optim_options step; /* options->optim with the learning rate of this epoch */
    const am_optim *optim;
    int states;     /* of the optimiser */
    real *trunk;    /* borrowed */
    am_task *tasks; /* borrowed */
    am_schedule schedule;
    am_pass pass;
    am_segment of_trunk;
    am_segment *of_head;    /* [n_tasks] owned */
    int64_t n;              /* gradient vector, attention included */
    int64_t leaves, lo, hi; /* of a step; [lo, hi) are this rank's */
    bool has_idle;          /* ranks without a leaf exist: their requests cannot ride in the sum */
    am_tree *tree;          /* NULL: one rank, one leaf */
    am_arena arena;
    real *gradient;  /* [n] */
    am_exact loss;   /* of this epoch, this rank */
    int64_t samples; /* of this epoch, all ranks */
    double norm;     /* of the last gradient */
} am_trainer;

int AM_R(am_train_check)(const am_net_spec *spec, const am_samples *samples, int64_t classes)
{
    if (samples->n < 1) {
        return am_fail(AM_E_RECIPE, "%s: no samples", samples->label);
    }
    if (samples->features != spec->inputs) {
        return am_fail(AM_E_RECIPE, "%s: samples have %lld features, the network takes %lld",
                       samples->label, (long long)samples->features, (long long)spec->inputs);
    }
    if (samples->classes > classes) {
        return am_fail(AM_E_RECIPE, "%s: samples have %lld classes, the head has %lld",
                       samples->label, (long long)samples->classes, (long long)classes);
    }
    return 0;
}

static int am_train_check_tasks(const am_net_spec *spec, const am_task *tasks, int n_tasks,
                                const am_train_options *o)
{
    if (n_tasks < 1) {
        return am_fail(AM_E_RECIPE, "training: there is no task");
    }
    if (o->micro_batches < 1 || o->batch < 0 || o->epochs < 0) {
        return am_fail(AM_E_RECIPE, "training: micro_batches must be 1 or more, batch and epochs 0 "
                                    "or more");
    }
    if (!o->train_trunk && !o->train_head) {
        return am_fail(AM_E_RECIPE, "training: trunk and heads are both frozen");
    }
    if (AM_R(am_optim_name)(o->optim.method) == NULL) {
        return am_fail(AM_E_RECIPE, "training: no optimiser has number %d", o->optim.method);
    }
    int rc = 0;
    for (int t = 0; t < n_tasks; t++) {
        AM_KEEP(AM_R(am_train_check)(spec, &tasks[t].train, tasks[t].classes));
    }
    return rc;
}

/* Sizes and offsets of the segments; heads that never step together share their place. */
static int am_train_segments(am_trainer *t, const am_net_spec *spec, int n_tasks)
{
    am_param_layout layout;
    int rc = am_net_trunk_layout(spec, AM_REAL_DTYPE, &layout);
    if (rc != 0) {
        return rc;
    }
    t->of_trunk = (am_segment){.w = t->trunk, .n = t->options->train_trunk ? layout.n : 0};
    am_param_layout_free(&layout);
    t->of_head = am_new(n_tasks, sizeof *t->of_head, "heads");
    if (t->of_head == NULL) {
        return AM_E_NOMEM;
    }
    int64_t end = t->of_trunk.n;
    for (int i = 0; i < n_tasks; i++) {
        rc = am_net_head_layout(spec, t->tasks[i].classes, AM_REAL_DTYPE, &layout);
        if (rc != 0) {
            return rc;
        }
        am_segment *s = &t->of_head[i];
        *s = (am_segment){.w = t->tasks[i].head, .n = t->options->train_head ? layout.n : 0};
        am_param_layout_free(&layout);
        s->at = t->options->sum_tasks ? end : t->of_trunk.n;
        end = s->at + s->n > end ? s->at + s->n : end;
    }
    t->n = end + 1;
    return 0;
}

static void am_train_take_state(am_trainer *t, am_segment *s)
{
    for (int i = 0; i < t->states; i++) {
        s->state[i] = am_arena_take(&t->arena, (size_t)s->n * sizeof(real));
        memset(s->state[i], 0, (size_t)s->n * sizeof(real));
    }
}

/* Everything that a run allocates, but the tree. */
static int am_train_prepare(am_trainer *t, const am_net_spec *spec, int n_tasks)
{
    int rc = am_train_check_tasks(spec, t->tasks, n_tasks, t->options);
    AM_KEEP(am_train_segments(t, spec, n_tasks));
    if (rc != 0) {
        return rc;
    }
    t->optim = AM_R(am_optim_table)[t->options->optim.method];
    t->schedule = am_schedule_make(t->tasks, n_tasks, t->options);
    t->leaves = t->schedule.parts * t->options->micro_batches;
    int64_t classes = 0;
    t->states = t->optim->states(&t->options->optim);
    size_t need = am_arena_need((size_t)t->n * sizeof(real));
    need += (size_t)t->states * am_arena_need((size_t)t->of_trunk.n * sizeof(real));
    for (int i = 0; i < n_tasks; i++) {
        classes = t->tasks[i].classes > classes ? t->tasks[i].classes : classes;
        need += (size_t)t->states * am_arena_need((size_t)t->of_head[i].n * sizeof(real));
    }
    AM_KEEP(AM_R(am_pass_make)(spec, am_schedule_rows(&t->schedule), classes, true, &t->pass));
    AM_KEEP(am_arena_create(&t->arena, need, "gradient and optimiser state"));
    if (rc != 0) {
        return rc;
    }
    t->gradient = am_arena_take(&t->arena, (size_t)t->n * sizeof(real));
    am_train_take_state(t, &t->of_trunk);
    for (int i = 0; i < n_tasks; i++) {
        am_train_take_state(t, &t->of_head[i]);
    }
    return 0;
}

/* Gradient of one leaf, weighted so that the leaves sum to the mean over the batch (a leaf's share
 * n_leaf / n_batch times its mean: 1 / n_batch a sample). Whole of g is written. */
static int am_train_leaf(am_trainer *t, const am_part *part, int64_t leaf, real *g)
{
    const am_task *task = &t->tasks[part->task];
    const am_segment *head = &t->of_head[part->task];
    am_pass *pass = &t->pass;
    const int64_t B = am_schedule_leaf(&t->schedule, part, leaf, pass->index);
    if (B == 0) {
        memset(g, 0, (size_t)t->n * sizeof(real));
        return 0;
    }
    const int rc = AM_R(am_pass_load)(pass, &task->train, B, task->classes);
    if (rc != 0) {
        return rc;
    }
    AM_R(am_pass_forward)(pass, t->trunk, task->head, B, task->classes);
    AM_R(am_pass_backward)
    (pass, t->trunk, task->head, B, task->classes, 1 / (double)(part->hi - part->lo),
     t->of_trunk.n > 0 ? g : NULL, head->n > 0 ? g + head->at : NULL);
    /* Heads of other tasks, and the attention. */
    const int64_t lo = t->of_trunk.n, hi = head->n > 0 ? head->at : lo, end = hi + head->n;
    memset(g + lo, 0, (size_t)(hi - lo) * sizeof(real));
    memset(g + end, 0, (size_t)(t->n - end) * sizeof(real));
    bool is_finite = true;
    for (int64_t b = 0; b < B; b++) {
        am_exact_add(&t->loss, pass->loss[b]);
        is_finite = is_finite && isfinite(pass->loss[b]);
    }
    if (!is_finite) {
        g[0] = (real)NAN; /* an infinite loss can have a finite gradient: all ranks must see it */
    }
    return 0;
}

/* This rank's leaves onto the tree, or the only one into t->gradient. After a failure the rank goes
 * on with empty leaves until the others learn of it. Local. */
static int am_train_leaves(am_trainer *t, int64_t epoch, int64_t step)
{
    const int64_t M = t->options->micro_batches;
    int rc = 0;
    for (int64_t leaf = t->lo; leaf < t->hi; leaf++) {
        const am_part part = am_schedule_part(&t->schedule, epoch, step, (int)(leaf / M));
        real *g = t->tree != NULL ? am_tree_next(t->tree) : t->gradient;
        AM_KEEP(am_train_leaf(t, &part, leaf % M, g));
        if (rc != 0) {
            memset(g, 0, (size_t)t->n * sizeof(real));
        }
        g[t->n - 1] = rc != 0 || am_stop_requested() ? 1 : 0;
        if (t->tree != NULL) {
            am_tree_push(t->tree);
        }
    }
    return rc;
}

/* The gradient of a step, the same on every rank, in t->gradient. */
static int am_train_gradient_all(am_trainer *t, int64_t epoch, int64_t step)
{
    const int own = am_train_leaves(t, epoch, step);
    const int rc = t->tree != NULL ? am_tree_sum_all(t->tree, t->gradient, true) : 0;
    if (rc != 0) {
        return rc;
    }
    const bool is_called = t->has_idle || t->gradient[t->n - 1] != 0;
    return is_called ? am_agree_step_all(t->comm, own) : 0;
}

/* One sweep over a segment, a cached run at a time: its norm, then its step. With a clip the norm
 * of the whole gradient is known before. A run that is not finite ends the sweep; a loss that was
 * not finite is in the very first run, so that nothing has moved then. Adds to *norm2. */
static void am_train_sweep(am_trainer *t, am_segment *s, double scale, double *norm2)
{
    s->steps++;
    for (int64_t lo = 0; lo < s->n && isfinite(*norm2); lo += AM_SWEEP) {
        const int64_t n = s->n - lo < AM_SWEEP ? s->n - lo : AM_SWEEP;
        const real *g = t->gradient + s->at + lo;
        real *state[AM_OPTIM_MAX_STATES] = {NULL};
        *norm2 += AM_R(am_norm2)(g, n);
        for (int i = 0; i < t->states; i++) {
            state[i] = s->state[i] + lo;
        }
        if (isfinite(*norm2)) {
            t->optim->update(&t->step, s->steps, scale, n, s->w + lo, g, state);
        }
    }
}

/* One step; diverged when the gradient is not finite. */
static int am_train_step_all(am_trainer *t, int64_t epoch, int64_t step, bool *diverged)
{
    const int rc = am_train_gradient_all(t, epoch, step);
    if (rc != 0) {
        return rc;
    }
    const double clip = t->options->optim.clip;
    double norm2 = 0, scale = 1;
    if (clip > 0) {
        const double norm = sqrt(AM_R(am_norm2)(t->gradient, t->n - 1));
        scale = norm > clip ? clip / norm : 1;
        norm2 = isfinite(norm) ? 0 : norm;
    }
    am_train_sweep(t, &t->of_trunk, scale, &norm2);
    for (int i = 0; i < t->schedule.parts; i++) {
        const am_part part = am_schedule_part(&t->schedule, epoch, step, i);
        t->samples += part.hi - part.lo;
        am_train_sweep(t, &t->of_head[part.task], scale, &norm2);
    }
    t->norm = sqrt(norm2);
    *diverged = !isfinite(norm2);
    am_alive("train");
    return 0;
}

/* The sum of the last step may overflow the parameters themselves. */
static bool am_train_is_finite(const am_trainer *t)
{
    bool is_finite = isfinite(AM_R(am_norm2)(t->of_trunk.w, t->of_trunk.n));
    for (int i = 0; i < t->schedule.n_tasks; i++) {
        is_finite = is_finite && isfinite(AM_R(am_norm2)(t->of_head[i].w, t->of_head[i].n));
    }
    return is_finite;
}

static void am_train_set_rate(am_trainer *t, int64_t epoch)
{
    const am_train_options *o = t->options;
    t->step = o->optim;
    if (o->lr_decay != 0) {
        t->step.lr *= pow(o->lr_decay, (double)(o->first_epoch + epoch));
    }
}

static int am_train_epochs_all(am_trainer *t, am_train_result *result)
{
    int rc = 0;
    for (int64_t epoch = 0; epoch < t->options->epochs && !result->diverged; epoch++) {
        am_exact_zero(&t->loss);
        t->samples = 0;
        am_train_set_rate(t, epoch);
        for (int64_t step = 0; step < t->schedule.steps && !result->diverged; step++) {
            AM_TRY(am_train_step_all(t, epoch, step, &result->diverged));
            result->steps++;
        }
        result->samples += t->samples;
    }
    if (result->steps > 0) {
        AM_TRY(am_exact_sum_all(t->comm, &t->loss, 1));
        result->loss = am_exact_round(&t->loss) / (double)t->samples;
        result->gradient_norm = t->norm;
        result->diverged = result->diverged || !am_train_is_finite(t);
    }
cleanup:
    return rc;
}

int AM_R(am_train_all)(MPI_Comm comm, const am_net_spec *spec, void *trunk, am_task *tasks,
                       int n_tasks, const am_train_options *options, am_train_result *result)
{
    am_trainer t = {.comm = comm, .options = options, .trunk = trunk, .tasks = tasks};
    *result = (am_train_result){0};
    am_blas_single_thread();
    int rc = am_train_prepare(&t, spec, n_tasks), size = 1;
    AM_AGREE(comm);
    MPI_Comm_size(comm, &size);
    t.hi = t.leaves;
    t.has_idle = size > t.leaves;
    if (size > 1 || t.leaves > 1) {
        AM_TRY(am_tree_create_all(comm, t.leaves, t.n, (int)sizeof(real), &t.tree));
        am_tree_leaves(t.tree, &t.lo, &t.hi);
    }
    AM_TRY(am_train_epochs_all(&t, result));
cleanup:
    am_tree_free(&t.tree);
    am_arena_destroy(&t.arena);
    AM_R(am_pass_free)(&t.pass);
    free(t.of_head);
    return rc;
}
