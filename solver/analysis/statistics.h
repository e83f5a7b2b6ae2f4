/* Statistics of a network over the ranks: batches of samples are cut into fixed micro-batches, each
 * made whole on one rank (am_train_ops.stats), summed on the tree of mpi/reduce.h and added to the
 * sums so far, of which a rank holds the slice that it will write. So the bits depend on samples,
 * batch and micro_batches alone, memory does not grow with samples, and after any batch the sums
 * and the number of batches are all that a later job needs to go on.
 *
 *   open_all -> batch_all for every batch of every task -> store -> free
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ANALYSIS_STATISTICS_H
#define AM_SOLVER_ANALYSIS_STATISTICS_H

#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "solver/training/train.h"

typedef struct am_statistics_options {
    am_stats_options what;
    int64_t batch, micro_batches; /* samples; parts of them: both fix the rounding */
} am_statistics_options;

typedef struct am_statistics {
    MPI_Comm comm;     /* borrowed */
    const am_net *net; /* borrowed, shaped */
    const am_train_ops *ops;
    am_statistics_options options;
    am_stats_layout layout; /* owned */
    am_slice slice;         /* owned: of the layout's tensors, in blocks */
    double *sum;            /* [slice.elements] owned: its spans end to end */
    am_tree *tree;          /* owned */
    double *whole;          /* [layout.n] owned */
    const void *other;      /* trunk of the second network of a pair; borrowed, set by the caller */
} am_statistics;

/** Begin with sums of zero. Collective [comm]; arguments [same]; net stays as it is. After an error
 * only free it. Errors: those of am_stats_layout_make, AM_E_NOMEM; agreed. */
int am_statistics_open_all(MPI_Comm comm, const am_train_ops *ops, const am_net *net,
                           const am_statistics_options *options, am_statistics *out);
void am_statistics_free(am_statistics *self); /* accepts a zeroed one */

/** Bytes that the largest of `ranks` ranks of one node takes for batches of tasks with at most `n`
 * samples and `classes` classes: sums, tree, and a micro-batch. Pure but for memory. Errors:
 * AM_E_RECIPE, AM_E_NOMEM. */
int am_statistics_bytes(const am_train_ops *ops, const am_net *net,
                        const am_statistics_options *options, int64_t n, int64_t classes, int ranks,
                        int64_t *sums, int64_t *leaf);

/** Batches of n samples. Pure. */
int64_t am_statistics_batches(const am_statistics_options *options, int64_t n);
/** Add batch `number` of task->train with its head at `trunk`. A safe point: a rank that is asked
 * to stop makes no further micro-batch, and the sums stay as they were.
 *
 * Collective [comm]; arguments [same]. Errors: those of ops->stats; AM_E_STOPPED; agreed. */
int am_statistics_batch_all(am_statistics *self, const void *trunk, const am_task *task,
                            int64_t number);

/** All sums so far, on every rank, into whole [layout.n]. Collective [comm]. Errors: AM_E_NOMEM,
 * agreed. */
int am_statistics_gather_all(const am_statistics *self, double *whole);

/** Store this rank's slice into a sink with the layout's tensors: the sums, or what they are over
 * `samples` samples (0: the sums). Load what was stored as sums. Local. Errors: those of sink and
 * source. */
int am_statistics_store(const am_statistics *self, int64_t samples, const am_sink *sink);
int am_statistics_load(am_statistics *self, const am_source *source);

#endif
