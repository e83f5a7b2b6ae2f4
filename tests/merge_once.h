/* One merge of small tensors in memory through the real engine: what tests of methods need.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_TESTS_MERGE_ONCE_H
#define AM_TESTS_MERGE_ONCE_H

#include <mpi.h>
#include "mpi/tensor.h"
#include "solver/merge/merge.h"

enum { AM_ONCE_MODELS = 16 };

/* Reals are f64, tensor after tensor in the table's order; parameters hold for every tensor. */
typedef struct am_merge_once {
    const am_method *method;
    const am_tensor_table *tensors;
    int models;
    const double *base; /* NULL: none */
    const double *x[AM_ONCE_MODELS], *aux[AM_ONCE_MODELS];
    double param[AM_METHOD_MAX_PARAMS], model_param[AM_ONCE_MODELS][AM_METHOD_MAX_PARAMS];
    am_scope scope;         /* 0: the method's own */
    am_semantics semantics; /* 0: the method's own */
    uint64_t seed;
    int64_t block, unit; /* elements loaded at a time, and of the slices' units; 0: any */
} am_merge_once;

/** All parameters at their defaults, for all models. Local. */
void am_merge_once_defaults(am_merge_once *m);
/** Set a parameter, of one model or (-1) of all and of the merge. Local. Unknown: a failed check.
 */
void am_merge_once_set(am_merge_once *m, const char *key, int model, double value);
/** Merge over all ranks; out [numel of all tensors] is the whole result on every rank.
 * Collective [comm]. Errors: those of am_merge_run_all. */
int am_merge_once_all(MPI_Comm comm, const am_merge_once *m, double *out);

#endif
