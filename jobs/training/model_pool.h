/* A pool: this rank's slice of the base trunk and of every task's trunk, in memory, ready for the
 * merge engine. It turns "each group holds whole models of its tasks" into "each rank holds its
 * slice of all models" and back:
 *
 *        group 0: [theta_1.......]        rank 0: [theta_1|theta_2|...|theta_T] slice 0
 *        group 1: [theta_2.......]  --->  rank 1: [theta_1|theta_2|...|theta_T] slice 1   --->
 * merged
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_MODEL_POOL_H
#define AM_JOBS_TRAINING_MODEL_POOL_H

#include "jobs/training/suite/suite.h"
#include "mpi/partition.h"
#include "solver/merge/merge.h"

typedef struct am_model_pool am_model_pool;

/** Where tensors are cut into slices: a multiple of elements. whole: nowhere, as methods that work
 * by rows or on matrices need it (rows of a neighbour are not in a slice in memory).
 * Pure. */
int64_t am_model_pool_unit(const am_tensor_table *tensors, bool whole);
/** Plan the slices of suite's trunks. Collective [suite->comm]. Memory: (T + 2) slices per rank.
 * The suite is borrowed for the pool's lifetime. Errors: AM_E_NOMEM, agreed. */
int am_model_pool_create_all(const am_suite *suite, bool whole, am_model_pool **out);
void am_model_pool_free(am_model_pool **pool);

/** Fill the pool from the current base (equal on all ranks) and from the trunks of all tasks.
 *
 * Collective [suite->comm]. base [same] one trunk; trunks [rank] as in am_suite_finetune_all: those
 * of the own group's tasks, equal within the group. Members of a group share the sending. */
int am_model_pool_fill_all(am_model_pool *pool, const void *base, void *const *trunks);

/* How a pool is merged: values of the method's parameters in table order. */
typedef struct am_pool_merge {
    const am_method *method;
    am_scope scope;                   /* 0: as the method has it */
    am_semantics semantics;           /* likewise */
    const double *param;              /* [P] borrowed */
    const double *model_param;        /* [P] borrowed: the same for every tensor and task */
    const am_merge_input *aux, *gram; /* [T] of the models, as in am_merge_job; NULL: none */
    uint64_t seed;                    /* of what is drawn */
} am_pool_merge;

/** Merge what the pool holds into `merged`, a whole trunk on every rank.
 *
 * Collective [suite->comm]; everything [same]. Errors: those of am_merge_run_all. */
int am_model_pool_merge_all(am_model_pool *pool, const am_pool_merge *how, void *merged);

/** Gram matrix of the task vectors. Collective [suite->comm].
 * per_tensor [tensors, T, T] or NULL; global [T, T]. */
int am_model_pool_gram_all(am_model_pool *pool, double *per_tensor, double *global);

#endif
