/* Gradients by epoch: see gradients.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/iterate/gradients.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/training/measured.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/suite/train.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"
#include "solver/theory/network.h"
#include "solver/theory/vectors.h"
#include "solver/training/schedule.h"

/* A task of this group. */
typedef struct probe {
    am_iterate *it;
    int64_t n, epochs;
    am_task task;      /* as it is trained */
    am_task exact;     /* the same with its head in f64 */
    am_theory_net net; /* owned: losses and gradients of `exact` */
    am_oracle oracle;
    void *trunk;              /* borrowed reals: the model that is trained */
    am_train_state *state;    /* owned */
    double *room;             /* owned: the vectors below, [n] each, and the head */
    double *theta;            /* trunk in f64; once it is measured, its distance from the base */
    double *first, *gradient; /* full-batch: of the first epoch, of this one */
    double *first_accumulated, *spread; /* accumulated: likewise, at the places of their tensors */
    double *sum; /* accumulated, as training has it: without what is frozen */
} probe;

static void widen(const am_suite *suite, int64_t n, const void *from, double *to)
{
    const float *f = from;
    if (suite->ops->dtype == AM_DTYPE_F64) {
        memcpy(to, from, (size_t)n * sizeof *to);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        to[i] = f[i];
    }
}

/* The optimiser's gradients are those of whole steps. */
static am_train_options options_of(const probe *p)
{
    const am_train_recipe *recipe = p->it->recipe;
    am_train_options options =
        am_train_section_options(&recipe->finetune, recipe->seed, "one_shot", 0, 0, p->epochs);
    options.epochs = p->epochs;
    options.optim.is_sharded = false;
    options.accumulated = p->sum;
    return options;
}

/* Collective in the group. */
static int open_all(am_iterate *it, int i, probe *p)
{
    am_suite *suite = &it->suite;
    const int64_t head = suite->head[i].n;
    int rc = AM_OK;
    *p = (probe){.it = it,
                 .n = suite->net.trunk.n,
                 .epochs = am_train_recipe_gradient_epochs(it->recipe),
                 .task = am_suite_training(suite, i),
                 .exact = am_suite_training(suite, i),
                 .trunk = it->trunk[i]};
    p->room = am_new(AM_GRADIENT_VECTORS * p->n + head, sizeof *p->room, "gradients");
    rc = p->room == NULL ? AM_E_NOMEM : AM_OK;
    if (rc == AM_OK) {
        double **const each[AM_GRADIENT_VECTORS] = {
            &p->theta, &p->first, &p->gradient, &p->first_accumulated, &p->spread, &p->sum};
        for (int v = 0; v < AM_GRADIENT_VECTORS; v++) {
            *each[v] = p->room + v * p->n;
        }
        p->exact.head = p->room + AM_GRADIENT_VECTORS * p->n;
        widen(suite, head, suite->head_params[i], p->exact.head);
        const am_train_options options = options_of(p);
        rc = suite->ops->state_make(suite->group, &suite->net, &p->task, 1, &options, &p->state);
    }
    AM_AGREE(suite->group);
    AM_TRY(am_theory_net_make_all(suite->group, &suite->net, &p->exact, 1,
                                  it->recipe->gradients.parts, &p->net, &p->oracle));
    am_iterate_copy(it, p->trunk, it->base);
cleanup:
    return rc;
}

static void probe_free(probe *p)
{
    am_theory_net_free(&p->net);
    am_train_state_free(&p->state);
    free(p->room);
}

/* The mean of the epoch's gradients, at the places of their tensors; running statistics have none.
 */
static void spread(const probe *p, double samples)
{
    const am_param_layout *trunk = &p->it->suite.net.trunk;
    const double *from = p->sum;
    memset(p->spread, 0, (size_t)p->n * sizeof *p->spread);
    for (int64_t k = 0; k < trunk->tensors.n; k++) {
        const int64_t numel = trunk->tensors.t[k].numel;
        if (trunk->is_frozen != NULL && trunk->is_frozen[k]) {
            continue;
        }
        for (int64_t i = 0; am_param_is_trained(trunk, k) && i < numel; i++) {
            p->spread[trunk->offset[k] + i] = from[i] / samples;
        }
        from += numel;
    }
}

/* Epoch `e`: measured at its start, then trained. */
static int epoch_all(probe *p, int64_t e, am_gradient_epoch *out, bool *diverged)
{
    am_iterate *it = p->it;
    const am_suite *suite = &it->suite;
    am_train_options options = options_of(p);
    am_train_result result = {0};
    int rc = AM_OK;
    widen(suite, p->n, p->trunk, p->theta);
    AM_TRY(p->oracle.gradient_all(p->oracle.self, 0, p->theta, &out->loss, p->gradient));
    memset(p->sum, 0, (size_t)p->n * sizeof *p->sum);
    options.state = p->state;
    options.most_steps = am_schedule_make(&p->task, 1, &options).steps;
    AM_TRY(
        suite->ops->train_all(suite->group, &suite->net, p->trunk, &p->task, 1, &options, &result));
    *diverged = result.diverged;
    spread(p, (double)p->task.train.n);
    if (e == 0) {
        memcpy(p->first, p->gradient, (size_t)p->n * sizeof *p->first);
        memcpy(p->first_accumulated, p->spread, (size_t)p->n * sizeof *p->first);
    }
    out->norm = am_theory_norm(p->n, p->gradient);
    out->cosine = am_theory_cosine(p->n, p->gradient, p->first);
    out->accumulated = am_theory_norm(p->n, p->spread);
    out->accumulated_cosine = am_theory_cosine(p->n, p->spread, p->first_accumulated);
    out->accumulated_full = am_theory_cosine(p->n, p->spread, p->gradient);
    /* The task vector, where the accumulated gradient has been read. */
    widen(suite, p->n, p->trunk, p->theta);
    widen(suite, p->n, it->base, p->spread);
    for (int64_t i = 0; i < p->n; i++) {
        p->theta[i] -= p->spread[i];
    }
    out->vector = am_theory_norm(p->n, p->theta);
    out->vector_cosine = -am_theory_cosine(p->n, p->theta, p->first);
cleanup:
    return rc;
}

static void share(am_gradient_epoch *epoch, int64_t n)
{
    double norms = 0, accumulated = 0;
    for (int64_t e = 0; e < n; e++) {
        norms += epoch[e].norm;
        accumulated += epoch[e].accumulated;
    }
    for (int64_t e = 0; e < n; e++) {
        epoch[e].share = epoch[e].norm / norms;
        epoch[e].accumulated_share = epoch[e].accumulated / accumulated;
    }
}

/* All epochs of own task i. Collective in the group. */
static int measure_all(am_iterate *it, int i, am_gradient_epoch *epoch)
{
    probe p;
    bool diverged = false;
    int rc = AM_OK;
    AM_TRY(open_all(it, i, &p));
    for (int64_t e = 0; e < p.epochs * AM_GRADIENT_REALS; e++) {
        ((double *)epoch)[e] = NAN;
    }
    for (int64_t e = 0; e < p.epochs && !diverged; e++) {
        AM_TRY(epoch_all(&p, e, &epoch[e], &diverged));
    }
    if (diverged) {
        am_warn("gradients: training of task %s diverged: lower the learning rate (now %g)",
                p.task.name, it->recipe->finetune.optim.lr);
    }
    share(epoch, p.epochs);
cleanup:
    probe_free(&p);
    return rc;
}

static int task_all(am_iterate *it, int i, am_gradient_epoch *epoch, double *seconds)
{
    const am_suite *suite = &it->suite;
    const int64_t n = am_train_recipe_gradient_epochs(it->recipe) * AM_GRADIENT_REALS;
    char name[AM_MAX_NAME + 16];
    bool is_done = false;
    int rc = AM_OK;
    snprintf(name, sizeof name, "gradients-%s", am_suite_task(suite, i));
    AM_TRY(am_measured_read_all(suite->group, it->folder, name, (double *)epoch, n, &is_done));
    if (!is_done) {
        const double started = am_seconds();
        AM_TRY(measure_all(it, i, epoch));
        AM_TRY(am_measured_write_all(suite->group, it->folder, name, (double *)epoch, n));
        *seconds = am_seconds() - started;
    }
cleanup:
    return rc;
}

static void report_task(const am_iterate *it, int i, const am_gradient_epoch *epoch, double seconds)
{
    const int64_t last = am_train_recipe_gradient_epochs(it->recipe) - 1;
    am_json json = {0};
    am_json_string(&json, "task", am_suite_task(&it->suite, i));
    am_json_real(&json, "measure_seconds", seconds);
    am_event("gradients", &json);
    am_json_free(&json);
    am_info("gradients of %s: the first of %lld epochs has %.3f of the norms; the last has cosine "
            "%.3f with it",
            am_suite_task(&it->suite, i), (long long)last + 1, epoch[0].share, epoch[last].cosine);
}

int am_iterate_gradients_all(am_iterate *it)
{
    am_suite *suite = &it->suite;
    const int64_t epochs = am_train_recipe_gradient_epochs(it->recipe);
    const int64_t bytes = epochs * (int64_t)sizeof *it->gradient;
    double *seconds = NULL;
    int rc = AM_OK;
    if (!it->recipe->gradients.is_given) {
        return AM_OK;
    }
    it->gradient = am_new(suite->n * epochs, sizeof *it->gradient, "gradients");
    seconds = am_new(suite->n, sizeof *seconds, "gradients");
    rc = it->gradient == NULL || seconds == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(suite->comm);
    AM_TRY(am_run_folder_sub_all(suite->comm, it->folder, "units"));
    for (int i = 0; i < suite->n && rc == AM_OK; i++) {
        if (am_iterate_is_mine(it, i)) {
            rc = task_all(it, i, it->gradient + i * epochs, &seconds[i]); /* agreed in the group */
        }
    }
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        const int leader = am_suite_leader(suite, i);
        AM_TRY(am_bcast_all(suite->comm, leader, it->gradient + i * epochs, bytes));
        AM_TRY(am_bcast_all(suite->comm, leader, &seconds[i], sizeof *seconds));
        report_task(it, i, it->gradient + i * epochs, seconds[i]);
    }
cleanup:
    free(seconds);
    return rc;
}

/* ---- the report ---- */

void am_gradients_json(const am_iterate *it, am_json *json)
{
    const int64_t epochs = am_train_recipe_gradient_epochs(it->recipe);
    if (it->gradient == NULL) {
        return;
    }
    am_json_array(json, "gradients");
    for (int64_t r = 0; r < it->suite.n * epochs; r++) {
        const am_gradient_epoch *epoch = &it->gradient[r];
        am_json_object(json, NULL);
        am_json_string(json, "task", am_suite_task(&it->suite, (int)(r / epochs)));
        am_json_int(json, "epoch", r % epochs + 1);
        am_json_real(json, "loss_nats", epoch->loss);
        am_json_real(json, "gradient", epoch->norm);
        am_json_real(json, "share", epoch->share);
        am_json_real(json, "cosine_first_gradient", epoch->cosine);
        am_json_real(json, "accumulated", epoch->accumulated);
        am_json_real(json, "accumulated_share", epoch->accumulated_share);
        am_json_real(json, "cosine_first_accumulated", epoch->accumulated_cosine);
        am_json_real(json, "cosine_accumulated", epoch->accumulated_full);
        am_json_real(json, "task_vector", epoch->vector);
        am_json_real(json, "cosine_task_vector", epoch->vector_cosine);
        am_json_end_object(json);
    }
    am_json_end_array(json);
}

void am_gradients_write(const am_iterate *it, FILE *out)
{
    const int64_t epochs = am_train_recipe_gradient_epochs(it->recipe);
    if (it->gradient == NULL) {
        return;
    }
    fprintf(out,
            "\ngradients by epoch: of the full batch at its start, and accumulated over its steps: "
            "norm, share of all epochs, cosine with the first; of both; of the task vector with "
            "minus the first\n%-12s %5s %9s | %9s %6s %8s | %9s %6s %8s | %8s %8s\n",
            "task", "epoch", "nats", "full", "share", "first", "accum.", "share", "first", "both",
            "vector");
    for (int64_t r = 0; r < it->suite.n * epochs; r++) {
        const am_gradient_epoch *e = &it->gradient[r];
        fprintf(out, "%-12.12s %5lld %9.5f | %9.3e %6.4f %8.5f | %9.3e %6.4f %8.5f | %8.5f %8.5f\n",
                am_suite_task(&it->suite, (int)(r / epochs)), (long long)(r % epochs + 1), e->loss,
                e->norm, e->share, e->cosine, e->accumulated, e->accumulated_share,
                e->accumulated_cosine, e->accumulated_full, e->vector_cosine);
    }
}
