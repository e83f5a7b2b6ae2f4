/* Tasks, heads and task groups of a training job: see suite.h. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "jobs/training/suite/suite.h"

#include <stdio.h>
#include <stdlib.h>
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

am_samples am_suite_samples(const am_suite *suite, int i, am_split split)
{
    return split == AM_VALIDATION && suite->halves_validation
               ? am_dataset_half(suite->data[i], split, true)
               : am_dataset_samples(suite->data[i], split);
}

void *am_suite_trunk_new(const am_suite *suite)
{
    return am_new(suite->trunk.n, (size_t)am_suite_real_bytes(suite), "a trunk");
}

int am_suite_leader(const am_suite *suite, int task)
{
    int size;
    int64_t lo, hi;
    MPI_Comm_size(suite->comm, &size);
    am_part_range(size, suite->n_groups, suite->owner[task], &lo, &hi);
    return (int)lo;
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

static void free_adapters(am_suite *suite)
{
    am_adapters *adapters = &suite->adapters;
    for (int i = 0; adapters->block != NULL && i <= suite->n; i++) {
        free(adapters->block[i]);
    }
    free(adapters->block);
    free(adapters->anchor);
    am_net_free(&adapters->net);
    *adapters = (am_adapters){0};
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
    free_adapters(suite);
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
