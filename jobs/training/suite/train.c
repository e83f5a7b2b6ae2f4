/* Training the tasks of a suite: see train.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/suite/train.h"

#include <stdlib.h>
#include "jobs/training/suite/adapt.h"
#include "jobs/training/suite/report.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

am_task am_suite_training(const am_suite *suite, int i)
{
    return (am_task){.name = am_suite_task(suite, i),
                     .train = suite->trains_on == AM_VALIDATION
                                  ? am_dataset_half(suite->data[i], AM_VALIDATION, false)
                                  : am_dataset_samples(suite->data[i], AM_TRAIN),
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
        const int leader = am_suite_leader(suite, i);
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
        AM_TRY(am_bcast_all(suite->comm, am_suite_leader(suite, i), suite->head_params[i],
                            suite->head[i].n * am_suite_real_bytes(suite)));
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
