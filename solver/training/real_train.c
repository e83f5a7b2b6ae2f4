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
#include "mpi/clock.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "solver/linalg/blas.h"
#include "solver/training/real_pass.h"
#include "solver/training/real_step.h"
#include "solver/training/schedule.h"

typedef struct am_trainer {
    MPI_Comm comm;
    const am_train_options *options;
    real *trunk;    /* borrowed */
    am_task *tasks; /* borrowed */
    am_schedule schedule;
    am_augment *augment; /* [tasks] owned; NULL: samples as they are */
    int n_augment;
    am_net_pass pass;
    am_train_state *state; /* borrowed, or `own` */
    am_train_state *own;   /* owned: made for a call that brings none */
    am_stepper stepper;
    int64_t *ahead; /* [rows] owned: samples of the next leaf; NULL: no source reads ahead */
    int *stepped;   /* [parts + 1] owned: segments of a step */
    int64_t n;      /* gradient vector, attention included */
    int64_t mark;   /* its first element that takes steps: NaN there is seen first */
    int64_t leaves, lo, hi; /* of a step; [lo, hi) are this rank's */
    bool has_idle;          /* ranks without a leaf exist: their requests cannot ride in the sum */
    am_tree *tree;          /* NULL: one rank, one leaf */
    am_arena arena;
    real *gradient; /* [n] owned, or for a step the root of the tree */
    real *buffer;   /* [n] owned */
} am_trainer;

int AM_R(am_train_check)(const am_net *net, const am_samples *samples, int64_t classes)
{
    if (samples->n < 1) {
        return am_fail(AM_E_RECIPE, "%s: no samples", samples->label);
    }
    const int rc = am_net_fits(net, samples);
    if (rc != 0) {
        return rc;
    }
    if (samples->classes > classes) {
        return am_fail(AM_E_RECIPE, "%s: samples have %lld classes, the head has %lld",
                       samples->label, (long long)samples->classes, (long long)classes);
    }
    return 0;
}

static int am_train_check_tasks(const am_net *net, const am_task *tasks, int n_tasks,
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
    if (o->accumulated != NULL && o->optim.is_sharded) {
        return am_fail(AM_E_RECIPE, "training: gradients are accumulated of whole steps only: "
                                    "shard_optimizer: no");
    }
    if (o->optim.bf16_weights && AM_REAL != 32) {
        return am_fail(AM_E_RECIPE, "training: bf16_weights needs dtype: float32");
    }
    int rc = 0;
    for (int t = 0; t < n_tasks; t++) {
        AM_KEEP(AM_R(am_train_check)(net, &tasks[t].train, tasks[t].classes));
    }
    return rc;
}

/* ---- segments and their state ---- */

/* The trunk, then the heads; those that never step together share their place. A frozen segment has
 * no tensors, and frozen tensors have no place. */
static int am_train_segments(const am_net *net, const am_task *tasks, int n_tasks,
                             const am_train_options *o, am_train_segment *s, int64_t *reals)
{
    s[0].name = "trunk";
    am_param_layout trunk = {0};
    int rc = o->train_trunk ? am_net_trunk_layout(net, AM_REAL_DTYPE, &trunk) : 0;
    AM_KEEP(am_param_layout_part(&trunk, &s[0].layout));
    am_param_layout_free(&trunk);
    int64_t end = s[0].layout.n;
    for (int i = 1; i <= n_tasks && rc == 0; i++) {
        s[i].name = tasks[i - 1].name;
        if (o->train_head) {
            rc = am_net_head_layout(net, tasks[i - 1].classes, AM_REAL_DTYPE, &s[i].layout);
        }
        s[i].at = o->sum_tasks ? end : s[0].layout.n;
        end = s[i].at + s[i].layout.n > end ? s[i].at + s[i].layout.n : end;
    }
    *reals = end + 1;
    return rc;
}

int AM_R(am_train_state_arrays)(const am_optim_options *options)
{
    return AM_R(am_optim_table)[options->method]->states(options) + options->bf16_weights;
}

bool AM_R(am_train_is_direct)(const am_optim_options *options)
{
    return AM_R(am_optim_table)[options->method]->direct != NULL;
}

void AM_R(am_train_step)(const am_optim_options *options, int64_t step, int64_t n, void *w,
                         const void *g, void *const *state)
{
    const am_optim *optim = AM_R(am_optim_table)[options->method];
    real *array[AM_OPTIM_MAX_STATES] = {0};
    AM_ASSERT(optim->update != NULL);
    for (int i = 0; i < optim->states(options); i++) {
        array[i] = state[i];
    }
    optim->update(options, step, 1, n, w, g, array);
}

int AM_R(am_train_state_new)(MPI_Comm comm, const am_net *net, const am_task *tasks, int n_tasks,
                             const am_train_options *options, am_train_state **out)
{
    *out = NULL;
    int rc = am_train_check_tasks(net, tasks, n_tasks, options);
    if (rc != 0) {
        return rc;
    }
    am_train_segment *segment = am_new(n_tasks + 1, sizeof *segment, "heads");
    int64_t reals = 0;
    if (segment == NULL) {
        return AM_E_NOMEM;
    }
    rc = am_train_segments(net, tasks, n_tasks, options, segment, &reals);
    const am_optim *optim = AM_R(am_optim_table)[options->optim.method];
    const int arrays = AM_R(am_train_state_arrays)(&options->optim);
    const char *name[AM_STATE_ARRAYS] = {optim->state_names[0], optim->state_names[1]};
    if (options->optim.bf16_weights) {
        name[arrays - 1] = "master";
    }
    const int made = am_train_state_make(comm, (int)sizeof(real), options->optim.is_sharded,
                                         n_tasks + 1, segment, reals, arrays, name, out);
    rc = rc != 0 ? rc : made;
    if (rc != 0) {
        am_train_state_free(out);
    }
    return rc;
}

/* First element of the gradient vector that takes steps. Errors: AM_E_RECIPE: nothing does. */
static int am_train_find_mark(am_trainer *t)
{
    const am_param_layout *trunk = &t->state->segment[0].layout;
    t->mark = trunk->n;
    for (int64_t k = trunk->tensors.n - 1; k >= 0; k--) {
        t->mark = am_param_is_trained(trunk, k) ? trunk->offset[k] : t->mark;
    }
    return t->mark < t->n - 1 ? 0 : am_fail(AM_E_RECIPE, "training: every tensor is frozen");
}

static int am_train_augment(am_trainer *t, const am_net *net, int n_tasks)
{
    const am_train_options *o = t->options;
    if (!am_augment_is_on(&o->augment)) {
        return 0;
    }
    t->augment = am_new(n_tasks, sizeof *t->augment, "augmentation");
    int rc = t->augment == NULL ? AM_E_NOMEM : 0;
    for (t->n_augment = 0; rc == 0 && t->n_augment < n_tasks; t->n_augment++) {
        const am_task *task = &t->tasks[t->n_augment];
        rc = am_augment_make(&o->augment, net, &task->train, task->name, o->seed, o->purpose,
                             o->round, &t->augment[t->n_augment]);
    }
    return rc;
}

static int am_train_ahead(am_trainer *t, int n_tasks)
{
    bool reads_ahead = false;
    for (int i = 0; i < n_tasks; i++) {
        reads_ahead = reads_ahead || t->tasks[i].train.announce != NULL;
    }
    if (reads_ahead) {
        t->ahead = am_new(am_schedule_rows(&t->schedule), sizeof *t->ahead, "training");
    }
    return reads_ahead && t->ahead == NULL ? AM_E_NOMEM : 0;
}

/* Everything that a run allocates, but the tree. */
static int am_train_prepare(am_trainer *t, const am_net *net, int n_tasks)
{
    const am_train_options *o = t->options;
    int rc = am_train_check_tasks(net, t->tasks, n_tasks, o);
    t->state = o->state;
    if (rc == 0 && t->state == NULL) {
        rc = AM_R(am_train_state_new)(t->comm, net, t->tasks, n_tasks, o, &t->own);
        t->state = t->own;
    }
    real **w = am_new((int64_t)n_tasks + 1, sizeof *w, "training");
    t->stepped = am_new((int64_t)n_tasks + 1, sizeof *t->stepped, "training");
    if (rc != 0 || w == NULL || t->stepped == NULL) {
        free(w);
        return rc != 0 ? rc : AM_E_NOMEM;
    }
    AM_ASSERT(t->state->n == n_tasks + 1 && t->state->bytes_per_real == (int)sizeof(real));
    int64_t classes = 0;
    w[0] = t->trunk;
    for (int i = 0; i < n_tasks; i++) {
        w[i + 1] = t->tasks[i].head;
        classes = t->tasks[i].classes > classes ? t->tasks[i].classes : classes;
    }
    t->n = t->state->reals;
    t->schedule = am_schedule_make(t->tasks, n_tasks, o);
    t->leaves = t->schedule.parts * o->micro_batches;
    AM_KEEP(am_train_find_mark(t));
    AM_KEEP(am_train_augment(t, net, n_tasks));
    AM_KEEP(am_train_ahead(t, n_tasks));
    AM_KEEP(AM_R(am_pass_make)(net, am_schedule_rows(&t->schedule), classes, true, &t->pass));
    AM_KEEP(am_arena_create(&t->arena, am_arena_need((size_t)t->n * sizeof(real)), "gradient"));
    AM_KEEP(AM_R(am_stepper_make)(t->state, &o->optim, w, o->log != NULL, &t->stepper));
    free(w);
    if (rc == 0) {
        t->buffer = am_arena_take(&t->arena, (size_t)t->n * sizeof(real));
        t->gradient = t->buffer;
    }
    return rc;
}

/* ---- leaves ---- */

/* Samples of a part, as this pass over its task sees them. */
static am_samples am_train_samples(am_trainer *t, const am_part *part)
{
    if (t->augment == NULL) {
        return t->tasks[part->task].train;
    }
    am_augment_pass(&t->augment[part->task], part->pass);
    return am_augment_samples(&t->augment[part->task]);
}

/* Tell the source of samples what this rank's next leaf takes, so that it is read while this one is
 * worked on. */
static void am_train_announce(am_trainer *t, int64_t epoch, int64_t step, int64_t leaf)
{
    const int64_t M = t->options->micro_batches;
    if (t->ahead == NULL) {
        return;
    }
    if (++leaf == t->hi) {
        leaf = t->lo;
        step++;
    }
    if (step == t->schedule.steps) {
        step = 0;
        epoch++;
    }
    if (epoch < t->options->epochs) {
        const am_part part = am_schedule_part(&t->schedule, epoch, step, (int)(leaf / M));
        const am_samples *samples = &t->tasks[part.task].train;
        if (samples->announce != NULL) {
            samples->announce(samples->self, t->ahead,
                              am_schedule_leaf(&t->schedule, &part, leaf % M, t->ahead));
        }
    }
}

/* Gradient of one leaf, weighted so that the leaves sum to the mean over the batch (a leaf's share
 * n_leaf / n_batch times its mean: 1 / n_batch a sample). Whole of g is written. */
static int am_train_leaf(am_trainer *t, int64_t epoch, int64_t step, int64_t leaf, real *g)
{
    const int64_t M = t->options->micro_batches;
    const am_part at = am_schedule_part(&t->schedule, epoch, step, (int)(leaf / M)), *part = &at;
    const am_task *task = &t->tasks[part->task];
    const am_train_segment *trunk = &t->state->segment[0];
    const am_train_segment *head = &t->state->segment[part->task + 1];
    am_net_pass *pass = &t->pass;
    const int64_t B = am_schedule_leaf(&t->schedule, part, leaf % M, pass->index);
    if (B == 0) {
        memset(g, 0, (size_t)t->n * sizeof(real));
        return 0;
    }
    const am_samples samples = am_train_samples(t, part);
    const int rc = AM_R(am_pass_load)(pass, &samples, B, task->classes);
    if (rc != 0) {
        return rc;
    }
    am_train_announce(t, epoch, step, leaf);
    pass->is_training = t->options->train_trunk; /* a frozen trunk is as in evaluation */
    pass->draw =
        (am_pass_draw){.seed = t->options->seed,
                       .purpose = t->options->purpose,
                       .round = t->options->round,
                       .step = (t->options->first_epoch + epoch) * t->schedule.steps + step};
    AM_R(am_pass_forward)(pass, t->trunk, task->head, B, task->classes);
    AM_R(am_pass_backward)
    (pass, t->trunk, task->head, B, task->classes, 1 / (double)(part->hi - part->lo),
     trunk->layout.n > 0 ? g : NULL, head->layout.n > 0 ? g + head->at : NULL);
    /* Heads of other tasks, and the attention. */
    const int64_t lo = trunk->layout.n, hi = head->layout.n > 0 ? head->at : lo;
    const int64_t end = hi + head->layout.n;
    memset(g + lo, 0, (size_t)(hi - lo) * sizeof(real));
    memset(g + end, 0, (size_t)(t->n - end) * sizeof(real));
    bool is_finite = true;
    for (int64_t b = 0; b < B; b++) {
        am_exact_add(&t->state->loss, pass->loss[b]);
        is_finite = is_finite && isfinite(pass->loss[b]);
    }
    if (!is_finite) {
        g[t->mark] =
            (real)NAN; /* an infinite loss can have a finite gradient: all ranks must see it */
    }
    return 0;
}

/* This rank's leaves onto the tree, or the only one into t->buffer. After a failure the rank goes
 * on with empty leaves until the others learn of it. Local. */
static int am_train_leaves(am_trainer *t, int64_t epoch, int64_t step)
{
    int rc = 0;
    for (int64_t leaf = t->lo; leaf < t->hi; leaf++) {
        real *g = t->tree != NULL ? am_tree_next(t->tree) : t->buffer;
        AM_KEEP(am_train_leaf(t, epoch, step, leaf, g));
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

/* The sum of the leaves in t->gradient: whole and the same on every rank, or its slice. */
static int am_train_sum_all(am_trainer *t)
{
    const void *root = t->buffer;
    int rc = 0;
    if (t->tree != NULL && (t->state->is_sharded || t->stepper.optim->direct != NULL)) {
        rc = am_tree_sum_all(t->tree, t->buffer, !t->state->is_sharded);
    } else if (t->tree != NULL) {
        rc = am_tree_root_all(t->tree, t->buffer, &root);
    }
    t->gradient = (real *)root; /* a step writes to it only with a direction, and then it is ours */
    return rc;
}

/* The gradient of a step. When the ranks were called to attention, the agreed code. *attention,
 * *own: of this rank, for a sharded step. */
static int am_train_gradient_all(am_trainer *t, int64_t epoch, int64_t step, bool *attention,
                                 int *own)
{
    *own = am_train_leaves(t, epoch, step);
    const int rc = am_train_sum_all(t);
    *attention = *own != 0 || am_stop_requested();
    if (rc != 0 || t->state->is_sharded) {
        return rc;
    }
    const bool is_called = t->has_idle || t->gradient[t->n - 1] != 0;
    return is_called ? am_agree_step_all(t->comm, *own) : 0;
}

/* ---- steps ---- */

AM_CLONES static void am_train_accumulate(int64_t n, double samples, const real *restrict g,
                                          double *restrict sum)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += samples * g[i];
    }
}

/* One step; *diverged when the gradient is not finite. After an error the state, the weights and
 * the loss of the epoch are those before the step. */
static int am_train_step_all(am_trainer *t, int64_t epoch, int64_t step, bool *diverged)
{
    const am_train_options *o = t->options;
    const am_exact loss = t->state->loss;
    bool attention = false;
    int own = 0, n = 1;
    int64_t samples = 0;
    t->stepped[0] = 0;
    for (int i = 0; i < t->schedule.parts; i++) {
        const am_part part = am_schedule_part(&t->schedule, epoch, step, i);
        samples += part.hi - part.lo;
        t->stepped[n++] = part.task + 1;
    }
    const double lr = am_rate_at(&o->rate, o->optim.lr, o->first_epoch + epoch, step,
                                 t->schedule.steps, o->first_epoch + o->epochs);
    int rc = am_train_gradient_all(t, epoch, step, &attention, &own);
    AM_TRY(rc);
    if (o->accumulated != NULL) {
        am_train_accumulate(t->state->segment[0].layout.n, (double)samples, t->gradient,
                            o->accumulated);
    }
    AM_TRY(AM_R(am_stepper_step_all)(&t->stepper, lr, t->gradient, t->stepped, n, &attention,
                                     diverged));
    if (t->state->is_sharded && attention) {
        AM_TRY(am_agree_step_all(t->comm, own));
        AM_ASSERT(!"attention without a cause"); /* nothing has moved */
    }
    t->state->samples += samples;
    t->state->epoch_samples += samples;
    am_alive("train");
cleanup:
    if (rc != 0) {
        t->state->loss = loss;
    }
    return rc;
}

/* The sum of the last step may overflow the parameters themselves. */
static bool am_train_is_finite(const am_trainer *t)
{
    bool is_finite = true;
    for (int i = 0; i < t->state->n; i++) {
        const am_param_layout *layout = &t->state->segment[i].layout;
        for (int64_t k = 0; is_finite && k < layout->tensors.n; k++) {
            const real *w = (const real *)t->stepper.w[i] + layout->home[k];
            is_finite = isfinite(AM_R(am_norm2)(w, layout->tensors.t[k].numel));
        }
    }
    return is_finite;
}

/* Mean loss over the samples of the epoch so far. */
static int am_train_loss_all(const am_trainer *t, double *out)
{
    am_exact loss = t->state->loss;
    const int rc = am_exact_sum_all(t->comm, &loss, 1);
    *out = am_exact_round(&loss) / (double)t->state->epoch_samples;
    return rc;
}

/* Add the steps that were taken since `start` to the log. */
static int am_train_record_all(am_trainer *t, const am_train_record *part, double start)
{
    am_train_log *log = t->options->log;
    am_train_record *r = am_train_log_at(log, part->epoch);
    const am_param_layout *layout = &t->state->segment[0].layout;
    const int64_t n = layout->tensors.n;
    am_exact *energy = t->stepper.energy;
    am_exact *sums = am_train_log_energy(log, log->n - 1);
    int rc = 0;
    r->steps += part->steps;
    r->samples += part->samples;
    am_exact_merge(&r->norm_sum, &part->norm_sum);
    r->norm_most = part->norm_most > r->norm_most ? part->norm_most : r->norm_most;
    r->norm_last = part->norm_last;
    r->seconds += am_seconds() - start;
    AM_TRY(am_train_loss_all(t, &r->loss));
    AM_TRY(t->state->is_sharded ? am_exact_sum_all(t->comm, energy, n) : 0);
    for (int64_t k = 0; k < n; k++) {
        am_exact_merge(&sums[layout->number[k]], &energy[k]);
    }
    memset(energy, 0, (size_t)n * sizeof *energy);
cleanup:
    return rc;
}

/* The steps that are left of the epoch of the state, most_steps allowing. */
static int am_train_epoch_all(am_trainer *t, int64_t *left, bool *diverged)
{
    am_train_state *state = t->state;
    am_train_record part = {.epoch = t->options->first_epoch + state->epoch};
    const double start = am_seconds();
    int rc = 0;
    if (state->step == 0) {
        am_exact_zero(&state->loss);
        state->epoch_samples = 0;
    }
    part.samples = -state->epoch_samples;
    while (state->step < t->schedule.steps && *left != 0 && !*diverged) {
        AM_TRY(am_train_step_all(t, state->epoch, state->step, diverged));
        state->step++;
        state->steps++;
        part.steps++;
        part.norm_last = t->stepper.norm;
        am_exact_add(&part.norm_sum, part.norm_last);
        part.norm_most = part.norm_last > part.norm_most ? part.norm_last : part.norm_most;
        --*left;
    }
    part.samples += state->epoch_samples;
    if (t->options->log != NULL) {
        AM_TRY(am_train_record_all(t, &part, start));
    }
    if (state->step == t->schedule.steps) {
        state->step = 0;
        state->epoch++;
    }
cleanup:
    return rc;
}

/* What the run has come to, and the state back to the start of another run after its end. */
static int am_train_result_all(am_trainer *t, am_train_result *result)
{
    am_train_state *state = t->state;
    int rc = 0;
    result->steps = state->steps;
    result->samples = state->samples;
    if (state->steps > 0) {
        AM_TRY(am_train_loss_all(t, &result->loss));
        result->gradient_norm = t->stepper.norm;
        result->diverged = result->diverged || !am_train_is_finite(t);
    }
    result->is_finished = state->epoch >= t->options->epochs;
    if (result->is_finished) {
        state->epoch = state->step = state->steps = state->samples = 0;
    }
cleanup:
    return rc;
}

static int am_train_epochs_all(am_trainer *t, am_train_result *result)
{
    int64_t left = t->options->most_steps > 0 ? t->options->most_steps : -1;
    int rc = 0;
    while (t->state->epoch < t->options->epochs && left != 0 && !result->diverged) {
        AM_TRY(am_train_epoch_all(t, &left, &result->diverged));
    }
    AM_TRY(am_train_result_all(t, result));
cleanup:
    if (rc != 0) {
        result->steps = t->state->steps;
        result->samples = t->state->samples;
    }
    return rc;
}

int AM_R(am_train_all)(MPI_Comm comm, const am_net *net, void *trunk, am_task *tasks, int n_tasks,
                       const am_train_options *options, am_train_result *result)
{
    am_trainer t = {.comm = comm, .options = options, .trunk = trunk, .tasks = tasks};
    *result = (am_train_result){0};
    am_blas_single_thread();
    int rc = am_train_prepare(&t, net, n_tasks), size = 1;
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
    AM_R(am_stepper_free)(&t.stepper);
    am_train_state_free(&t.own);
    for (int i = 0; i < t.n_augment; i++) {
        am_augment_free(&t.augment[i]);
    }
    free(t.augment);
    free(t.ahead);
    free(t.stepped);
    return rc;
}
