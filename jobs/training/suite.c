/* Tasks, heads and task groups of a training job: see suite.h. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "jobs/training/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/training/adapt.h"
#include "jobs/training/report.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

int64_t am_suite_real_bytes(const am_suite *suite)
{
    return am_dtype_bytes(suite->ops->dtype);
}

const char *am_suite_task(const am_suite *suite, int i)
{
    return am_dataset_name(suite->data[i]);
}

bool am_suite_is_text(const am_suite *suite)
{
    bool is_text = true;
    for (int i = 0; i < suite->n; i++) {
        is_text = is_text && am_dataset_is_text(suite->data[i]);
    }
    return is_text;
}

void *am_suite_trunk_new(const am_suite *suite)
{
    return am_new(suite->trunk.n, (size_t)am_suite_real_bytes(suite), "a trunk");
}

/* ---- open and close ---- */

static int check_features(const am_suite *suite)
{
    for (int i = 1; i < suite->n; i++) {
        int64_t first = am_dataset_features(suite->data[0]);
        int64_t here = am_dataset_features(suite->data[i]);
        if (here != first) {
            return am_fail(AM_E_DATA,
                           "task %s has %lld features a sample, task %s has %lld: tasks that share "
                           "a trunk need the same inputs",
                           am_suite_task(suite, i), (long long)here, am_suite_task(suite, 0),
                           (long long)first);
        }
    }
    return AM_OK;
}

static int lay_out_heads(am_suite *suite)
{
    int rc = AM_OK;
    for (int i = 0; i < suite->n && rc == AM_OK; i++) {
        rc = am_net_head_layout(&suite->net, am_dataset_classes(suite->data[i]), suite->ops->dtype,
                                &suite->head[i]);
        if (rc == AM_OK) {
            suite->head_params[i] =
                am_new(suite->head[i].n, (size_t)am_suite_real_bytes(suite), "a head");
            rc = suite->head_params[i] == NULL ? AM_E_NOMEM : AM_OK;
        }
    }
    return rc;
}

static int split_ranks_all(am_suite *suite)
{
    int rank, size, rc = AM_OK;
    MPI_Comm_rank(suite->comm, &rank);
    MPI_Comm_size(suite->comm, &size);
    suite->n_groups = size < suite->n ? size : suite->n;
    suite->my_group = (int)am_part_owner(size, suite->n_groups, rank);
    int64_t *cost = am_new(suite->n, sizeof *cost, "task costs");
    rc = cost == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        cost[i] = am_dataset_samples(suite->data[i], AM_TRAIN).n;
    }
    am_part_balance(cost, suite->n, suite->n_groups, suite->owner);
    if (MPI_Comm_split(suite->comm, suite->my_group, rank, &suite->group) != MPI_SUCCESS) {
        rc = am_fail(AM_E_NOMEM, "MPI cannot split the ranks into %d task groups", suite->n_groups);
    }
    AM_AGREE(suite->comm);
cleanup:
    free(cost);
    return rc;
}

int am_suite_open_all(MPI_Comm comm, const char *folder, const char *const *tasks, int n,
                      const int64_t limit[AM_SPLITS], const int64_t *room, const am_net *net,
                      am_dtype dtype, am_suite *out)
{
    int rc = AM_OK;
    *out = (am_suite){.comm = comm, .group = MPI_COMM_NULL, .n = n};
    out->ops = am_train_ops_of(dtype);
    if (n < 1) {
        rc = am_fail(AM_E_RECIPE, "there is no task: list at least one under data: tasks:");
    } else if (out->ops == NULL) {
        rc = am_fail(AM_E_RECIPE, "cannot train in dtype %s: use float32 or float64",
                     am_dtype_name(dtype));
    }
    AM_AGREE(comm);
    out->data = am_new(n, sizeof *out->data, "data sets");
    out->head = am_new(n, sizeof *out->head, "heads");
    out->head_params = am_new(n, sizeof *out->head_params, "heads");
    out->owner = am_new(n, sizeof *out->owner, "tasks");
    out->rollbacks = am_new(n, sizeof *out->rollbacks, "tasks");
    out->log = am_new(n, sizeof *out->log, "tasks");
    rc =
        !out->data || !out->head || !out->head_params || !out->owner || !out->rollbacks || !out->log
            ? AM_E_NOMEM
            : AM_OK;
    AM_AGREE(comm);
    for (int i = 0; i < n; i++) {
        char path[4096];
        int length = snprintf(path, sizeof path, "%s/%s.h5", folder, tasks[i]);
        rc = length < (int)sizeof path
                 ? AM_OK
                 : am_fail(AM_E_RECIPE, "the path of task %s is too long", tasks[i]);
        AM_AGREE(comm);
        AM_TRY(am_dataset_open_all(comm, path, limit, room != NULL ? room[i] : 0, &out->data[i]));
    }
    rc = check_features(out);
    AM_KEEP(am_net_copy(net, &out->net));
    AM_KEEP(am_net_shape(&out->net, am_dataset_features(out->data[0])));
    for (int i = 0; rc == AM_OK && i < n; i++) {
        const am_samples samples = am_dataset_samples(out->data[i], AM_TRAIN);
        rc = am_net_fits(&out->net, &samples);
    }
    AM_KEEP(am_net_trunk_layout(&out->net, dtype, &out->trunk));
    AM_KEEP(am_param_layout_part(&out->trunk, &out->moved));
    AM_KEEP(lay_out_heads(out));
    AM_AGREE(comm);
    AM_TRY(split_ranks_all(out));
cleanup:
    return rc;
}

void am_suite_close_all(am_suite *suite)
{
    if (suite->group != MPI_COMM_NULL && suite->comm != MPI_COMM_NULL) {
        int rc = am_mpi_code(MPI_Comm_free(&suite->group), "MPI_Comm_free");
        AM_ASSERT(rc == AM_OK); /* errors on communicators end the job before */
    }
    for (int i = 0; i < suite->n; i++) {
        if (suite->data) {
            am_dataset_close(&suite->data[i]);
        }
        if (suite->head) {
            am_param_layout_free(&suite->head[i]);
        }
        if (suite->head_params) {
            free(suite->head_params[i]);
        }
        if (suite->log) {
            am_train_log_free(&suite->log[i]);
        }
    }
    am_adapt_close(suite);
    am_param_layout_free(&suite->trunk);
    am_param_layout_free(&suite->moved);
    am_net_free(&suite->net);
    free(suite->data);
    free(suite->head);
    free(suite->head_params);
    free(suite->owner);
    free(suite->rollbacks);
    free(suite->log);
    *suite = (am_suite){.comm = MPI_COMM_NULL, .group = MPI_COMM_NULL};
}

/* ---- training ---- */

am_task am_suite_training(const am_suite *suite, int i)
{
    return (am_task){.name = am_suite_task(suite, i),
                     .train = am_dataset_samples(suite->data[i], AM_TRAIN),
                     .head = suite->head_params[i],
                     .classes = am_dataset_classes(suite->data[i])};
}

static int new_log(const am_suite *suite, const am_train_options *options, am_train_log *out)
{
    am_train_log_free(out);
    return am_train_log_make(am_adapt_net(suite)->trunk.tensors.n, options->epochs, out);
}

/* Train task i on this group's ranks; a diverged run is an error that names the task. */
static int train_one_all(am_suite *suite, int i, void *trunk, const am_train_options *options)
{
    am_task task = am_suite_training(suite, i);
    am_train_result result = {0};
    am_train_options logged = *options;
    int64_t rollbacks = 0;
    void *trained = trunk;
    int rc = options->train_trunk ? am_adapt_begin(suite, i, trunk, options, &trained) : AM_OK;
    AM_KEEP(new_log(suite, options, &suite->log[i]));
    AM_AGREE(suite->group);
    logged.log = &suite->log[i];
    const am_saver_call call = {.comm = suite->group,
                                .name = task.name,
                                .ops = suite->ops,
                                .net = options->train_trunk ? am_adapt_net(suite) : &suite->net,
                                .moved = &suite->moved,
                                .trunk = trained,
                                .tasks = &task,
                                .heads = &suite->head[i],
                                .n_tasks = 1,
                                .options = &logged,
                                .policy = &suite->divergence};
    rc = am_saver_train_all(suite->saver, &call, &result, &rollbacks);
    suite->rollbacks[i] = rollbacks;
    if (rc == AM_OK && options->train_trunk) {
        rc = am_adapt_end(suite, trained, trunk);
    }
    if (rc == AM_OK && result.diverged) {
        rc = am_fail(AM_E_NUMERIC,
                     "training of task %s diverged (%s): lower the learning rate (now %g)",
                     task.name, options->purpose, am_rollback_lr(options->optim.lr, rollbacks));
    }
cleanup:
    return rc;
}

/* First rank of a group. */
static int group_leader(const am_suite *suite, int group)
{
    int size;
    int64_t lo, hi;
    MPI_Comm_size(suite->comm, &size);
    am_part_range(size, suite->n_groups, group, &lo, &hi);
    return (int)lo;
}

/* The log of every task, from the leader of its group to all ranks. */
static int share_logs_all(am_suite *suite)
{
    int rc = AM_OK, group_rank;
    int64_t *n = am_new(suite->n, sizeof *n, "records of training");
    rc = n == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(suite->comm);
    MPI_Comm_rank(suite->group, &group_rank);
    for (int i = 0; i < suite->n && group_rank == 0; i++) {
        n[i] = suite->owner[i] == suite->my_group ? suite->log[i].n : 0;
    }
    AM_TRY(am_sum_i64_all(suite->comm, n, suite->n));
    for (int i = 0; i < suite->n; i++) {
        am_train_log *log = &suite->log[i];
        if (suite->owner[i] != suite->my_group || log->room < n[i]) {
            am_train_log_free(log);
            AM_KEEP(am_train_log_make(am_adapt_net(suite)->trunk.tensors.n, n[i], log));
        }
        log->n = n[i];
    }
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        const am_train_log *log = &suite->log[i];
        const int leader = group_leader(suite, suite->owner[i]);
        AM_TRY(
            am_bcast_all(suite->comm, leader, log->record, log->n * (int64_t)sizeof *log->record));
        AM_TRY(am_bcast_all(suite->comm, leader, log->energy,
                            log->n * log->tensors * (int64_t)sizeof *log->energy));
    }
cleanup:
    free(n);
    return rc;
}

int am_suite_report_all(am_suite *suite, const am_train_options *options)
{
    int group_rank, rc = AM_OK;
    MPI_Comm_rank(suite->group, &group_rank);
    for (int i = 0; i < suite->n && group_rank != 0; i++) { /* one rank counts for its group */
        suite->rollbacks[i] = 0;
    }
    AM_TRY(am_sum_i64_all(suite->comm, suite->rollbacks, suite->n));
    AM_TRY(share_logs_all(suite));
    for (int i = 0; i < suite->n; i++) {
        am_report_epochs(suite, options, am_suite_task(suite, i), &suite->log[i]);
        am_train_log_free(&suite->log[i]);
        for (int64_t k = 1; k <= suite->rollbacks[i]; k++) {
            am_rollback_report(options->purpose, am_suite_task(suite, i), k,
                               am_rollback_lr(options->optim.lr, k));
        }
        suite->rollbacks[i] = 0;
    }
cleanup:
    return rc;
}

int am_suite_probe_all(am_suite *suite, const void *trunk, const am_train_options *options)
{
    am_train_options probe = *options;
    probe.train_trunk = false;
    probe.train_head = true;
    int rc = AM_OK;
    for (int i = 0; i < suite->n; i++) {
        if (suite->owner[i] == suite->my_group) {
            /* The trunk is not trained: the cast does not write through it. */
            AM_KEEP(train_one_all(suite, i, (void *)trunk, &probe));
        }
    }
    const int told = am_suite_report_all(suite, &probe);
    AM_KEEP(told);
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        AM_TRY(am_bcast_all(suite->comm, group_leader(suite, suite->owner[i]),
                            suite->head_params[i], suite->head[i].n * am_suite_real_bytes(suite)));
    }
cleanup:
    return rc;
}

int am_suite_finetune_one_all(am_suite *suite, int task, void *trunk,
                              const am_train_options *options)
{
    am_train_options finetune = *options;
    finetune.train_trunk = true;
    finetune.train_head = false;
    return train_one_all(suite, task, trunk, &finetune);
}

int am_suite_finetune_all(am_suite *suite, void *const *trunks, const am_train_options *options)
{
    int rc = AM_OK;
    for (int i = 0; i < suite->n; i++) {
        if (suite->owner[i] == suite->my_group) {
            AM_KEEP(am_suite_finetune_one_all(suite, i, trunks[i], options));
        }
    }
    const int told = am_suite_report_all(suite, options);
    AM_KEEP(told);
    return am_agree_all(suite->comm, rc);
}

int am_suite_state_all(const am_suite *suite, const am_train_options *options, am_train_state **out)
{
    am_train_options joint = *options;
    joint.train_trunk = true;
    *out = NULL;
    am_task *tasks = am_new(suite->n, sizeof *tasks, "tasks");
    int rc = tasks == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; i < suite->n && rc == AM_OK; i++) {
        tasks[i] = am_suite_training(suite, i);
    }
    AM_KEEP(suite->ops->state_make(suite->comm, am_adapt_net(suite), tasks, suite->n, &joint, out));
    free(tasks);
    rc = am_agree_all(suite->comm, rc);
    if (rc != AM_OK) {
        am_train_state_free(out);
    }
    return rc;
}

int am_suite_joint_all(am_suite *suite, void *trunk, const am_train_options *options)
{
    am_train_options joint = *options;
    am_train_result result = {0};
    am_train_log log = {0};
    int64_t rollbacks = 0;
    void *trained = trunk;
    joint.train_trunk = true;
    joint.log = options->log != NULL ? options->log : &log;
    am_task *tasks = am_new(suite->n, sizeof *tasks, "tasks");
    int rc = tasks == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(new_log(suite, options, &log));
    if (options->state == NULL) {
        AM_KEEP(am_adapt_begin(suite, suite->n, trunk, options, &trained));
    }
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        tasks[i] = am_suite_training(suite, i);
    }
    const am_saver_call call = {.comm = suite->comm,
                                .name = "joint",
                                .ops = suite->ops,
                                .net = am_adapt_net(suite),
                                .moved = &suite->moved,
                                .trunk = trained,
                                .tasks = tasks,
                                .heads = suite->head,
                                .n_tasks = suite->n,
                                .options = &joint,
                                .policy = &suite->divergence};
    if (options->state == NULL) {
        AM_TRY(am_saver_train_all(suite->saver, &call, &result, &rollbacks));
        rc = am_adapt_end(suite, trained, trunk);
        AM_AGREE(suite->comm);
    } else { /* its owner saves it, and takes it back */
        AM_TRY(suite->ops->train_all(suite->comm, am_adapt_net(suite), trunk, tasks, suite->n,
                                     &joint, &result));
        result.diverged = am_rollback_is_due(&suite->divergence, &result);
    }
    am_report_epochs(suite, &joint, NULL, &log);
    for (int64_t k = 1; k <= rollbacks; k++) {
        am_rollback_report(joint.purpose, NULL, k, am_rollback_lr(joint.optim.lr, k));
    }
    if (result.diverged) { /* the same on all ranks */
        rc = am_fail(AM_E_NUMERIC, "training (%s) diverged: lower the learning rate (now %g)",
                     joint.purpose, am_rollback_lr(joint.optim.lr, rollbacks));
    }
cleanup:
    am_train_log_free(&log);
    free(tasks);
    return rc;
}

/* ---- evaluation ---- */

void am_scores_free(am_scores *scores)
{
    for (int i = 0; scores->task != NULL && i < scores->n; i++) {
        free(scores->task[i].of_class);
    }
    free(scores->task);
    *scores = (am_scores){0};
}

static int scores_new_all(const am_suite *suite, am_scores *out)
{
    *out = (am_scores){.n = suite->n};
    out->task = am_new(suite->n, sizeof *out->task, "scores");
    int rc = out->task == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; rc == AM_OK && i < suite->n; i++) {
        const int64_t classes = am_dataset_classes(suite->data[i]);
        out->task[i].of_class = am_new(2 * classes, sizeof *out->task[i].of_class, "scores");
        rc = out->task[i].of_class == NULL ? AM_E_NOMEM : AM_OK;
    }
    return am_agree_all(suite->comm, rc);
}

static void scores_mean(am_scores *scores)
{
    for (int i = 0; i < scores->n; i++) {
        const am_eval_result *task = &scores->task[i];
        scores->accuracy += task->n > 0 ? (double)task->correct / (double)task->n : 0.0;
        scores->loss += task->loss;
    }
    scores->accuracy /= scores->n;
    scores->loss /= scores->n;
}

int am_suite_eval_all(const am_suite *suite, const void *trunk, am_split split, am_scores *out)
{
    int rc = AM_OK;
    AM_TRY(scores_new_all(suite, out));
    for (int i = 0; i < suite->n; i++) {
        am_samples samples = am_dataset_samples(suite->data[i], split);
        AM_TRY(suite->ops->eval_all(suite->comm, &suite->net, trunk, suite->head_params[i],
                                    am_dataset_classes(suite->data[i]), &samples, &out->task[i]));
    }
    scores_mean(out);
cleanup:
    if (rc != AM_OK) {
        am_scores_free(out);
    }
    return rc;
}

int am_suite_eval_own_all(const am_suite *suite, void *const *trunks, am_split split,
                          am_scores *out)
{
    int rc = AM_OK;
    AM_TRY(scores_new_all(suite, out));
    for (int i = 0; i < suite->n; i++) {
        if (suite->owner[i] == suite->my_group) {
            am_samples samples = am_dataset_samples(suite->data[i], split);
            AM_KEEP(suite->ops->eval_all(suite->group, &suite->net, trunks[i],
                                         suite->head_params[i], am_dataset_classes(suite->data[i]),
                                         &samples, &out->task[i]));
        }
    }
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        int64_t *of_class = out->task[i].of_class;
        const int leader = group_leader(suite, suite->owner[i]);
        AM_TRY(am_bcast_all(suite->comm, leader, &out->task[i], sizeof out->task[i]));
        out->task[i].of_class = of_class;
        AM_TRY(am_bcast_all(suite->comm, leader, of_class,
                            2 * am_dataset_classes(suite->data[i]) * (int64_t)sizeof *of_class));
    }
    scores_mean(out);
cleanup:
    if (rc != AM_OK) {
        am_scores_free(out);
    }
    return rc;
}

/* ---- checkpoints ---- */

/* All heads as one table "<task>.<tensor>", with the reals gathered into one block. */
typedef struct head_block {
    am_tensor_table tensors;
    int64_t *offset;
    unsigned char *reals;
} head_block;

static void head_block_free(head_block *block)
{
    am_tensor_table_free(&block->tensors);
    free(block->offset);
    free(block->reals);
    *block = (head_block){0};
}

static int head_name(const am_suite *suite, int i, int64_t tensor, char *out, size_t bytes)
{
    int length = snprintf(out, bytes, "%s.%s", am_suite_task(suite, i),
                          suite->head[i].tensors.t[tensor].name);
    return length < (int)bytes
               ? AM_OK
               : am_fail(AM_E_DATA, "the task name %s is too long", am_suite_task(suite, i));
}

static int head_block_make(const am_suite *suite, head_block *out)
{
    int rc = AM_OK;
    int64_t reals = 0;
    char name[AM_MAX_NAME];
    for (int i = 0; i < suite->n; i++) {
        const am_tensor_table *tensors = &suite->head[i].tensors;
        reals += suite->head[i].n;
        for (int64_t k = 0; k < tensors->n; k++) {
            const am_tensor *t = &tensors->t[k];
            AM_TRY(head_name(suite, i, k, name, sizeof name));
            AM_TRY(am_tensor_table_add(&out->tensors, name, t->dtype, t->ndim, t->shape));
        }
    }
    AM_TRY(am_tensor_table_finish(&out->tensors));
    out->offset = am_new(out->tensors.n, sizeof *out->offset, "head offsets");
    out->reals = am_new(reals, (size_t)am_suite_real_bytes(suite), "heads");
    rc = !out->offset || !out->reals ? AM_E_NOMEM : AM_OK;
cleanup:
    return rc;
}

/* Copy between the block and the heads, setting the offsets on the way. */
static int head_block_copy(const am_suite *suite, head_block *block, bool into_heads)
{
    int rc = AM_OK;
    int64_t start = 0, bytes = am_suite_real_bytes(suite);
    char name[AM_MAX_NAME];
    for (int i = 0; i < suite->n; i++) {
        const am_param_layout *head = &suite->head[i];
        for (int64_t k = 0; k < head->tensors.n; k++) {
            AM_TRY(head_name(suite, i, k, name, sizeof name));
            int64_t at = am_tensor_table_find(&block->tensors, name);
            block->offset[at] = start + head->offset[k];
        }
        unsigned char *there = block->reals + start * bytes;
        size_t size = (size_t)(head->n * bytes);
        memcpy(into_heads ? suite->head_params[i] : there,
               into_heads ? there : suite->head_params[i], size);
        start += head->n;
    }
cleanup:
    return rc;
}

/* Parameters that are read must be finite: training from NaN would be reported as divergence. */
static int check_finite(const char *path, const am_tensor_table *tensors, const int64_t *offset,
                        const void *reals, am_dtype dtype)
{
    for (int64_t i = 0; i < tensors->n; i++) {
        for (int64_t k = 0; k < tensors->t[i].numel; k++) {
            int64_t at = offset[i] + k;
            double x = dtype == AM_DTYPE_F64 ? ((const double *)reals)[at]
                                             : (double)((const float *)reals)[at];
            if (!isfinite(x)) {
                return am_fail(AM_E_DATA, "%s: tensor %s holds %g at element %lld", path,
                               tensors->t[i].name, x, (long long)k);
            }
        }
    }
    return AM_OK;
}

int am_suite_save_heads_all(const am_suite *suite, const char *path, const am_ckpt_options *options)
{
    head_block block = {0};
    int rc = head_block_make(suite, &block);
    AM_KEEP(head_block_copy(suite, &block, false));
    AM_AGREE(suite->comm);
    AM_TRY(am_ckpt_save_all(suite->comm, path, &block.tensors, block.offset, block.reals, options));
cleanup:
    head_block_free(&block);
    return rc;
}

int am_suite_load_heads_all(am_suite *suite, const char *path)
{
    head_block block = {0};
    int rc = head_block_make(suite, &block);
    AM_KEEP(head_block_copy(suite, &block, false)); /* sets the offsets */
    AM_AGREE(suite->comm);
    AM_TRY(am_ckpt_load_all(suite->comm, path, &block.tensors, block.offset, block.reals));
    AM_TRY(check_finite(path, &block.tensors, block.offset, block.reals, suite->ops->dtype));
    AM_TRY(head_block_copy(suite, &block, true));
cleanup:
    head_block_free(&block);
    return rc;
}

int am_suite_save_trunk_all(const am_suite *suite, const char *path, const void *trunk,
                            const am_ckpt_options *options)
{
    return am_ckpt_save_all(suite->comm, path, &suite->trunk.tensors, suite->trunk.offset, trunk,
                            options);
}

int am_suite_load_trunk_all(const am_suite *suite, const char *path, void *trunk)
{
    const am_tensor_table *tensors = &suite->trunk.tensors;
    int rc = am_ckpt_load_all(suite->comm, path, tensors, suite->trunk.offset, trunk);
    AM_KEEP(check_finite(path, tensors, suite->trunk.offset, trunk, suite->ops->dtype));
    return rc; /* every rank has read the same values */
}
