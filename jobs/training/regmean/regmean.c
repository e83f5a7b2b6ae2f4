/* RegMean++: see regmean.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/regmean/regmean.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"
#include "solver/merge/regression.h"

/* ---- which layers ---- */

/* Tensor of the weight that node i multiplies its inputs with, as a matrix [rows, cols]; -1: none.
 */
static int64_t weight_of(const am_net *net, int i, int64_t *rows, int64_t *cols)
{
    const am_net_node *node = &net->node[i];
    char name[AM_NET_NAME + 16];
    if (node->layer->product_terms == NULL) {
        return -1;
    }
    snprintf(name, sizeof name, "%s.weight", node->name);
    const int64_t k = am_tensor_table_find(&net->trunk.tensors, name);
    const am_tensor *t = k >= 0 ? &net->trunk.tensors.t[k] : NULL;
    *cols = node->layer->product_terms(&node->site);
    *rows = t != NULL && t->ndim >= 2 ? t->shape[0] : 0;
    return *rows > 0 && t->numel == *rows * *cols ? k : -1;
}

static bool has_weight(const am_net *net, int first, int last)
{
    int64_t rows, cols;
    bool has = false;
    for (int i = first; i < last; i++) {
        has = has || weight_of(net, i, &rows, &cols) >= 0;
    }
    return has;
}

/* Layers one by one, or from cut to cut. Owned; NULL with AM_E_NOMEM in the slot. */
static am_regmean_step *find_steps(const am_net *net, const am_regmean_section *section, int *n)
{
    am_regmean_step *step = am_new(net->n + 1, sizeof *step, "layers");
    *n = 0;
    for (int i = 0; step != NULL && i < net->n;) {
        int last = i + 1;
        while (section->by == AM_REGMEAN_BLOCK && last < net->n && !net->node[last].is_cut) {
            last++;
        }
        if (has_weight(net, i, last)) {
            step[(*n)++] = (am_regmean_step){.first = i, .last = last};
        }
        i = last;
    }
    return step;
}

static am_statistics_options options_of(const am_regmean_section *section,
                                        const am_regmean_step *step)
{
    return (am_statistics_options){.what = {.fisher = AM_FISHER_NONE,
                                            .with_grams = true,
                                            .first = step->first,
                                            .last = step->last},
                                   .batch = section->batch,
                                   .micro_batches = section->micro_batches};
}

/* ---- reals ---- */

static double get(const am_suite *suite, const void *reals, int64_t i)
{
    return suite->ops->dtype == AM_DTYPE_F64 ? ((const double *)reals)[i]
                                             : (double)((const float *)reals)[i];
}

static void put(const am_suite *suite, void *reals, int64_t i, double x)
{
    if (suite->ops->dtype == AM_DTYPE_F64) {
        ((double *)reals)[i] = x;
    } else {
        ((float *)reals)[i] = (float)x;
    }
}

/* reals [offset, offset + n) of task t's model, into the same place of `to` on every rank. */
static int fetch_all(const am_regmean *self, int task, int64_t offset, int64_t n, void *to)
{
    const am_suite *suite = self->suite;
    const int64_t real = am_suite_real_bytes(suite);
    char *there = (char *)to + offset * real;
    if (self->trunks[task] != NULL) {
        memcpy(there, (const char *)self->trunks[task] + offset * real, (size_t)(n * real));
    }
    return am_bcast_all(suite->comm, am_suite_leader(suite, task), there, n * real);
}

/* merged := mean of the models, from the first one on, so that equal models stay as they are. */
static int mean_all(am_regmean *self)
{
    const am_suite *suite = self->suite;
    double *mean = am_new(suite->trunk.n, sizeof *mean, "a mean");
    int rc = mean == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(suite->comm);
    for (int t = 0; t < suite->n; t++) {
        AM_TRY(fetch_all(self, t, 0, suite->trunk.n, self->run));
        for (int64_t i = 0; i < suite->trunk.n; i++) {
            mean[i] += (get(suite, self->run, i) - mean[i]) / (double)(t + 1);
        }
    }
    for (int64_t i = 0; i < suite->trunk.n; i++) {
        put(suite, self->merged, i, mean[i]);
    }
cleanup:
    free(mean);
    return rc;
}

/* ---- life ---- */

static int check_samples(const am_suite *suite, am_split split)
{
    for (int i = 0; i < suite->n; i++) {
        if (am_suite_samples(suite, i, split).n == 0) {
            return am_fail(AM_E_DATA,
                           "task %s has no samples in its split %s: take another regmean.split",
                           am_suite_task(suite, i), am_dataset_split_name[split]);
        }
    }
    return AM_OK;
}

int am_regmean_open_all(const am_suite *suite, const am_regmean_section *section,
                        void *const *trunks, void *merged, am_regmean *out)
{
    *out = (am_regmean){.suite = suite, .section = section, .trunks = trunks, .merged = merged};
    int rc = check_samples(suite, section->split);
    out->run = am_suite_trunk_new(suite);
    out->step = find_steps(&suite->net, section, &out->n_steps);
    AM_KEEP(out->run == NULL || out->step == NULL ? AM_E_NOMEM : AM_OK);
    AM_AGREE(suite->comm);
    am_blas_single_thread();
    AM_TRY(mean_all(out));
cleanup:
    return rc;
}

void am_regmean_free(am_regmean *self)
{
    free(self->run);
    free(self->step);
    *self = (am_regmean){0};
}

/* ---- one step ---- */

/* A weight of the step. */
typedef struct weight {
    int node;
    int64_t tensor, offset, rows, cols;
    int owner;          /* the rank that merges it */
    am_regression sums; /* there */
} weight;

typedef struct work {
    am_regmean *self;
    const am_regmean_step *step;
    weight *w; /* [n] owned */
    int n;
    am_statistics statistics; /* owned */
    double *grams;            /* [layout.n] owned: of one task */
    am_arena arena;           /* sums of the own weights, one model's weight, a solution */
} work;

static void work_free(work *k)
{
    am_statistics_free(&k->statistics);
    am_arena_destroy(&k->arena);
    free(k->grams);
    free(k->w);
}

static int list_weights(work *k)
{
    const am_suite *suite = k->self->suite;
    int size;
    MPI_Comm_size(suite->comm, &size);
    const int nodes = k->step->last - k->step->first;
    k->w = am_new(nodes, sizeof *k->w, "layers");
    int64_t *cost = am_new(nodes, sizeof *cost, "layers");
    int *owner = am_new(nodes, sizeof *owner, "layers");
    const bool is_there = k->w != NULL && cost != NULL && owner != NULL;
    for (int i = k->step->first; is_there && i < k->step->last; i++) {
        weight *w = &k->w[k->n];
        w->node = i;
        w->tensor = weight_of(&suite->net, i, &w->rows, &w->cols);
        if (w->tensor >= 0) {
            const double operations =
                (double)w->cols * (double)w->cols * (double)(w->rows + w->cols);
            w->offset = suite->trunk.offset[w->tensor];
            cost[k->n++] = operations < 1e15 ? (int64_t)operations : (int64_t)1e15;
        }
    }
    if (is_there) {
        am_part_balance(cost, k->n, size, owner);
    }
    for (int i = 0; is_there && i < k->n; i++) {
        k->w[i].owner = owner[i];
    }
    free(cost);
    free(owner);
    return is_there ? AM_OK : AM_E_NOMEM;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Beside the sums: a model's weight and its Gram matrix, or a solution. */
static int64_t spare_bytes(int64_t rows, int64_t cols, double alpha)
{
    return am_matrix_bytes(rows, cols) +
           larger(am_matrix_bytes(cols, cols),
                  am_regression_solve_bytes_on(NULL, rows, cols, alpha));
}

static int begin_sums(work *k, int rank)
{
    const am_suite *suite = k->self->suite;
    const double alpha = k->self->section->alpha;
    int64_t bytes = 0, spare = 0;
    for (int i = 0; i < k->n; i++) {
        const weight *w = &k->w[i];
        if (w->owner == rank) {
            bytes += am_regression_bytes_on(NULL, w->rows, w->cols);
            spare = larger(spare, spare_bytes(w->rows, w->cols, alpha));
        }
    }
    const int rc = am_arena_create(&k->arena, (size_t)(bytes + spare), "sums of Gram matrices");
    for (int i = 0; rc == AM_OK && i < k->n; i++) {
        weight *w = &k->w[i];
        if (w->owner == rank) {
            am_regression_begin(&k->arena, am_matrix_of(w->rows, w->cols, NULL), alpha, &w->sums);
            for (int64_t e = 0; e < w->rows * w->cols; e++) {
                w->sums.start.at[e] = get(suite, k->self->merged, w->offset + e);
            }
        }
    }
    return rc;
}

static int work_open_all(am_regmean *self, int step, work *k)
{
    const am_suite *suite = self->suite;
    *k = (work){.self = self, .step = &self->step[step]};
    const am_statistics_options options = options_of(self->section, k->step);
    int rank, rc;
    MPI_Comm_rank(suite->comm, &rank);
    rc = list_weights(k);
    AM_KEEP(begin_sums(k, rank));
    AM_AGREE(suite->comm);
    AM_TRY(am_statistics_open_all(suite->comm, suite->ops, &suite->net, &options, &k->statistics));
    k->grams = am_new(k->statistics.layout.n, sizeof *k->grams, "Gram matrices");
    rc = k->grams == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(suite->comm);
cleanup:
    return rc;
}

/* self->run: the merged model, but in the step's nodes that of the task. */
static int prepare_all(const work *k, int task)
{
    const am_suite *suite = k->self->suite;
    int rc = AM_OK;
    memcpy(k->self->run, k->self->merged, (size_t)(suite->trunk.n * am_suite_real_bytes(suite)));
    for (int i = k->step->first; i < k->step->last; i++) {
        const am_net_node *node = &suite->net.node[i];
        for (int p = 0; p < node->n_params; p++) {
            AM_TRY(fetch_all(k->self, task, suite->trunk.offset[node->tensor[p]],
                             suite->trunk.tensors.t[node->tensor[p]].numel, k->self->run));
        }
    }
cleanup:
    return rc;
}

/* Sums in k->grams to means over the rows of so many samples; the statistics begin anew. */
static void take_means(work *k, int64_t samples)
{
    am_statistics *statistics = &k->statistics;
    const am_stats_layout *l = &statistics->layout;
    for (int64_t t = 0; t < l->tensors.n; t++) {
        const double rows = (double)(samples * l->rows[t]);
        for (int64_t i = 0; i < l->tensors.t[t].numel; i++) {
            k->grams[l->offset[t] + i] /= rows;
        }
    }
    memset(statistics->sum, 0, (size_t)statistics->slice.elements * sizeof *statistics->sum);
}

/* Gram matrices of a task's samples, into k->grams on every rank. */
static int grams_all(work *k, int task)
{
    const am_suite *suite = k->self->suite;
    const am_regmean_section *section = k->self->section;
    am_task of = {.name = am_suite_task(suite, task),
                  .train = am_suite_samples(suite, task, section->split),
                  .head = suite->head_params[task],
                  .classes = am_dataset_classes(suite->data[task])};
    int rc = AM_OK;
    if (section->samples > 0 && section->samples < of.train.n) {
        of.train.n = section->samples;
    }
    const int64_t batches = am_statistics_batches(&k->statistics.options, of.train.n);
    for (int64_t b = 0; b < batches; b++) {
        AM_TRY(am_statistics_batch_all(&k->statistics, k->self->run, &of, b));
    }
    AM_TRY(am_statistics_gather_all(&k->statistics, k->grams));
    take_means(k, of.train.n);
cleanup:
    return rc;
}

/* The task's weights, which are in self->run, to the sums of the own ones. */
static void add_task(work *k, int rank)
{
    const am_suite *suite = k->self->suite;
    for (int i = 0; i < k->n; i++) {
        weight *w = &k->w[i];
        if (w->owner != rank) {
            continue;
        }
        const size_t mark = am_arena_mark(&k->arena);
        const am_matrix model = am_matrix_take(&k->arena, w->rows, w->cols);
        for (int64_t e = 0; e < w->rows * w->cols; e++) {
            model.at[e] = get(suite, k->self->run, w->offset + e);
        }
        am_regression_add(
            &w->sums, 1, model,
            am_matrix_of(w->cols, w->cols, k->grams + k->statistics.layout.gram[w->node]));
        am_arena_release(&k->arena, mark);
        am_alive("regmean");
    }
}

static int solve(work *k, int rank)
{
    const am_suite *suite = k->self->suite;
    int rc = AM_OK;
    for (int i = 0; rc == AM_OK && i < k->n; i++) {
        weight *w = &k->w[i];
        if (w->owner != rank) {
            continue;
        }
        const size_t mark = am_arena_mark(&k->arena);
        const am_matrix out = am_matrix_take(&k->arena, w->rows, w->cols);
        rc = am_regression_solve(&k->arena, &w->sums, out);
        if (rc != AM_OK) {
            char why[AM_MESSAGE_BYTES];
            snprintf(why, sizeof why, "%s", am_error_message());
            am_error_clear();
            rc = am_fail(rc, "regmean: tensor %s: %.1000s", suite->trunk.tensors.t[w->tensor].name,
                         why);
        }
        for (int64_t e = 0; rc == AM_OK && e < w->rows * w->cols; e++) {
            put(suite, k->self->merged, w->offset + e, out.at[e]);
        }
        am_arena_release(&k->arena, mark);
        am_alive("regmean");
    }
    return rc;
}

int am_regmean_step_all(am_regmean *self, int step)
{
    const am_suite *suite = self->suite;
    const int64_t real = am_suite_real_bytes(suite);
    work k = {0};
    int rank, rc = AM_OK;
    MPI_Comm_rank(suite->comm, &rank);
    AM_TRY(work_open_all(self, step, &k));
    for (int t = 0; t < suite->n; t++) {
        AM_TRY(prepare_all(&k, t));
        AM_TRY(grams_all(&k, t));
        add_task(&k, rank);
    }
    rc = solve(&k, rank);
    AM_AGREE(suite->comm);
    for (int i = 0; i < k.n; i++) {
        const weight *w = &k.w[i];
        AM_TRY(am_bcast_all(suite->comm, w->owner, (char *)self->merged + w->offset * real,
                            w->rows * w->cols * real));
    }
cleanup:
    work_free(&k);
    return rc;
}

int am_regmean_tensors(const am_regmean *self, int step, am_tensor_table *tensors, int64_t **offset)
{
    const am_suite *suite = self->suite;
    const am_regmean_step *s = &self->step[step];
    int64_t rows, cols;
    int rc = AM_OK;
    *offset = am_new(s->last - s->first + 1, sizeof **offset, "layers");
    for (int i = s->first; rc == AM_OK && i < s->last; i++) {
        const int64_t k = weight_of(&suite->net, i, &rows, &cols);
        const am_tensor *t = k >= 0 ? &suite->trunk.tensors.t[k] : NULL;
        rc = t == NULL ? AM_OK : am_tensor_table_add(tensors, t->name, t->dtype, t->ndim, t->shape);
    }
    AM_KEEP(am_tensor_table_finish(tensors));
    AM_KEEP(*offset == NULL ? AM_E_NOMEM : AM_OK);
    for (int64_t i = 0; rc == AM_OK && i < tensors->n; i++) {
        (*offset)[i] =
            suite->trunk.offset[am_tensor_table_find(&suite->trunk.tensors, tensors->t[i].name)];
    }
    return rc;
}

/* ---- plan ---- */

/* Of a step, as if one rank merged all of its weights. */
static int step_need(const am_net *net, const am_train_ops *ops, const am_regmean_section *section,
                     const am_regmean_step *step, int ranks, int64_t n, int64_t classes,
                     int64_t *sums, int64_t *leaf)
{
    const am_statistics_options options = options_of(section, step);
    int64_t spare = 0, grams = 0, rows, cols;
    const int rc = am_statistics_bytes(ops, net, &options, n, classes, ranks, sums, leaf);
    for (int i = step->first; i < step->last; i++) {
        if (weight_of(net, i, &rows, &cols) >= 0) {
            *sums += am_regression_bytes_on(NULL, rows, cols);
            spare = larger(spare, spare_bytes(rows, cols, section->alpha));
            grams += am_matrix_bytes(cols, cols);
        }
    }
    *sums += spare + grams;
    return rc;
}

int am_regmean_need(const am_net *net, const am_train_ops *ops, const am_regmean_section *section,
                    int ranks, int64_t n, int64_t classes, int64_t *sums, int64_t *leaf)
{
    int n_steps = 0, rc = AM_OK;
    am_regmean_step *step = find_steps(net, section, &n_steps);
    *sums = *leaf = 0;
    rc = step == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; rc == AM_OK && i < n_steps; i++) {
        int64_t of_sums = 0, of_leaf = 0;
        rc = step_need(net, ops, section, &step[i], ranks, n, classes, &of_sums, &of_leaf);
        *sums = larger(*sums, of_sums);
        *leaf = larger(*leaf, of_leaf);
    }
    free(step);
    return rc;
}
