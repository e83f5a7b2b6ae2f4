/* Samples with the models that the router gives them: see twin.h. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "jobs/training/measured.h"
#include "jobs/training/twin/twin.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"

/* Models on their way to samples. */
typedef struct mixer {
    const am_twins *twins;
    am_twin_route route;
    void **twin;          /* expanded: of every task, or at [0] that of one; owned */
    void *merged;         /* trunk, owned */
    const double *weight; /* [n, tasks] */
} mixer;

/* merged = shared + sum_t weight[t] twin[t], added in f64 and rounded once; twin t is twin[t]. */
#define MIX(real)                                                                                  \
    do {                                                                                           \
        const real *shared = m->twins->shared;                                                     \
        real *merged = m->merged;                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                          \
            double sum = (double)shared[i];                                                        \
            for (int t = 0; t < tasks; t++) {                                                      \
                sum += weight[t] * (double)((const real *)m->twin[t])[i];                          \
            }                                                                                      \
            merged[i] = (real)sum;                                                                 \
        }                                                                                          \
    } while (0)

static void mix(const mixer *m, int tasks, const double *weight)
{
    const int64_t n = m->twins->suite->trunk.n;
    if (m->twins->suite->ops->dtype == AM_DTYPE_F64) {
        MIX(double);
    } else {
        MIX(float);
    }
}

/* Part t is of task t's twin, or of sample t alone. */
static int trunk_of(void *self, int64_t part, const void **trunk)
{
    static const double one = 1;
    mixer *m = self;
    int rc = AM_OK;
    if (m->route == AM_TWIN_TOP1) {
        rc = am_twins_expand(m->twins, (int)part, m->twin[0]);
        mix(m, 1, &one);
    } else {
        const int tasks = m->twins->suite->n;
        mix(m, tasks, m->weight + part * tasks);
    }
    *trunk = m->merged;
    return rc;
}

static int mixer_make(const am_twins *twins, am_twin_route route, mixer *out)
{
    const am_suite *suite = twins->suite;
    const int twin = route == AM_TWIN_TOP1 ? 1 : suite->n;
    *out = (mixer){.twins = twins, .route = route, .merged = am_suite_trunk_new(suite)};
    out->twin = am_new(suite->n, sizeof *out->twin, "twins");
    int rc = out->merged == NULL || out->twin == NULL ? AM_E_NOMEM : AM_OK;
    for (int t = 0; rc == AM_OK && t < twin; t++) {
        out->twin[t] = am_suite_trunk_new(suite);
        rc = out->twin[t] == NULL ? AM_E_NOMEM : AM_OK;
        if (route == AM_TWIN_SOFT) {
            AM_KEEP(am_twins_expand(twins, t, out->twin[t]));
        }
    }
    return rc;
}

static void mixer_free(mixer *m)
{
    for (int t = 0; m->twin != NULL && t < m->twins->suite->n; t++) {
        free(m->twin[t]);
    }
    free(m->twin);
    free(m->merged);
}

/* The likeliest task of a sample, the first of equals. */
static int likeliest(const double *weight, int tasks)
{
    int best = 0;
    for (int t = 1; t < tasks; t++) {
        best = weight[t] > weight[best] ? t : best;
    }
    return best;
}

/* Samples by their likeliest task: order [n], first [tasks + 1]. */
static void sort_by_task(const double *weight, int64_t n, int tasks, int64_t *order, int64_t *first)
{
    int64_t at = 0;
    for (int t = 0; t < tasks; t++) {
        first[t] = at;
        for (int64_t i = 0; i < n; i++) {
            if (likeliest(weight + i * tasks, tasks) == t) {
                order[at++] = i;
            }
        }
    }
    first[tasks] = at;
}

/* Of validation data those that the router has not learnt from. */
static am_samples samples_of(const am_suite *suite, int task, am_split split)
{
    return split == AM_VALIDATION ? am_dataset_half(suite->data[task], split, true)
                                  : am_suite_samples(suite, task, split);
}

static int eval_task_all(mixer *m, int task, am_split split, am_eval_result *result, double *routed)
{
    const am_suite *suite = m->twins->suite;
    const am_samples samples = samples_of(suite, task, split);
    const int64_t n = samples.n, parts = m->route == AM_TWIN_TOP1 ? suite->n : n;
    int64_t own = 0;
    double *weight =
        n <= INT64_MAX / suite->n ? am_new(n * suite->n, sizeof *weight, "weights") : NULL;
    int64_t *order = am_new(n, sizeof *order, "weights");
    int64_t *first = am_new(parts + 1, sizeof *first, "weights");
    int rc = weight == NULL || order == NULL || first == NULL
                 ? am_fail(AM_E_NOMEM, "out of memory for the weights of samples")
                 : AM_OK;
    AM_AGREE(suite->comm);
    AM_TRY(am_router_weights_all(m->twins, task, &samples, weight));
    m->weight = weight;
    if (m->route == AM_TWIN_TOP1) {
        sort_by_task(weight, n, suite->n, order, first);
    }
    for (int64_t i = 0; i < n; i++) {
        own += likeliest(weight + i * suite->n, suite->n) == task;
        if (m->route == AM_TWIN_SOFT) {
            order[i] = first[i] = i;
        }
    }
    first[parts] = n;
    *routed = n > 0 ? (double)own / (double)n : 0;
    const am_eval_parts by = {
        .n = parts, .first = first, .order = order, .trunk = trunk_of, .self = m, .may_stop = true};
    AM_TRY(suite->ops->eval_parts_all(suite->comm, &suite->net, &by, suite->head_params[task],
                                      am_dataset_classes(suite->data[task]), &samples, result));
cleanup:
    free(weight);
    free(order);
    free(first);
    return rc;
}

/* ---- scores that are kept ---- */

enum { KEPT = 7 }; /* numbers of a task, and two of each of its classes */

static void pack(const am_eval_result *r, double routed, int64_t classes, double *out)
{
    const double value[KEPT] = {(double)r->n, (double)r->correct, r->loss, (double)r->top5,
                                r->balanced,  r->calibration,     routed};
    memcpy(out, value, sizeof value);
    for (int64_t k = 0; k < 2 * classes; k++) {
        out[KEPT + k] = (double)r->of_class[k];
    }
}

static void unpack(const double *value, int64_t classes, am_eval_result *r, double *routed)
{
    r->n = (int64_t)value[0];
    r->correct = (int64_t)value[1];
    r->loss = value[2];
    r->top5 = (int64_t)value[3];
    r->balanced = value[4];
    r->calibration = value[5];
    *routed = value[6];
    for (int64_t k = 0; k < 2 * classes; k++) {
        r->of_class[k] = (int64_t)value[KEPT + k];
    }
}

/* A task's scores: those that an earlier attempt has kept, or else evaluated, and kept. */
static int score_task_all(mixer *m, int task, am_split split, am_eval_result *result,
                          double *routed)
{
    static const char *const splits[] = {"train", "validation", "test"};
    const am_twins *twins = m->twins;
    MPI_Comm comm = twins->suite->comm;
    if (twins->folder == NULL) {
        return eval_task_all(m, task, split, result, routed);
    }
    const int64_t classes = am_dataset_classes(twins->suite->data[task]), n = KEPT + 2 * classes;
    double *value = am_new(n, sizeof *value, "scores");
    char name[AM_RUN_PATH / 2];
    bool is_done = false;
    int rc = value == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(comm);
    snprintf(name, sizeof name, "%s-%s-%s", twins->label, splits[split],
             am_suite_task(twins->suite, task));
    AM_TRY(am_measured_read_all(comm, twins->folder, name, value, n, &is_done));
    if (is_done) {
        unpack(value, classes, result, routed);
    } else {
        AM_TRY(eval_task_all(m, task, split, result, routed));
        pack(result, *routed, classes, value);
        AM_TRY(am_measured_write_all(comm, twins->folder, name, value, n));
    }
cleanup:
    free(value);
    return rc;
}

int am_twins_eval_all(const am_twins *twins, am_twin_route route, am_split split, am_scores *out,
                      double *routed)
{
    const am_suite *suite = twins->suite;
    mixer m = {.twins = twins};
    double share;
    int rc = AM_OK;
    AM_TRY(am_scores_new_all(suite, out));
    if (twins->folder != NULL) {
        AM_TRY(am_run_folder_sub_all(suite->comm, twins->folder, "units"));
    }
    rc = mixer_make(twins, route, &m);
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        AM_TRY(score_task_all(&m, i, split, &out->task[i], routed != NULL ? &routed[i] : &share));
    }
    am_scores_mean(out);
cleanup:
    mixer_free(&m);
    if (rc != AM_OK) {
        am_scores_free(out);
    }
    return rc;
}

void am_twins_report(const am_suite *suite, const double *routed)
{
    am_json json = {0};
    am_json_array(&json, "task_routed_right");
    for (int i = 0; i < suite->n; i++) {
        am_json_real(&json, NULL, routed[i]);
    }
    am_json_end_array(&json);
    am_event("routed", &json);
    am_json_free(&json);
}
