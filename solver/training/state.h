/* What training carries from step to step beside the parameters: the optimiser's arrays, the
 * float32 masters of bf16 weights, and how far the run is. A state lives over several calls of
 * train_all, and can be saved at any step boundary and restored on another number of ranks,
 * sharded or not: the continued run gives the same bits.
 *
 *     state_make_all ──> train_all(most_steps) ──> store_all ──> ... killed
 *     state_make_all ──> load ──> train_all ──> done
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_STATE_H
#define AM_SOLVER_TRAINING_STATE_H

#include <mpi.h>
#include <stdbool.h>
#include "mpi/arena.h"
#include "mpi/reduce.h"
#include "solver/training/net.h"

enum { AM_STATE_ARRAYS = 3, AM_STATE_SEGMENTS = 1024 };

/* Parameters that take steps together: the trunk or one head. */
typedef struct am_train_segment {
    const char *name;       /* "trunk" or the task's; borrowed */
    am_param_layout layout; /* owned; layout.n is 0 when the segment is frozen */
    int64_t at;             /* offset in the gradient vector */
    int64_t lo, hi;         /* elements whose state this rank holds: all of them, or its slice */
    int64_t steps;          /* taken */
    bool has_master;        /* the master is filled; it is made from the weights otherwise */
    void *array[AM_STATE_ARRAYS]; /* [hi - lo] reals each, in the state's arena */
} am_train_segment;

typedef struct am_train_state {
    MPI_Comm comm; /* borrowed */
    int rank, size;
    int bytes_per_real;
    bool is_sharded; /* a rank holds its slice of every segment */
    int arrays;      /* of the optimiser, and the master where there is one, last */
    const char *array_name[AM_STATE_ARRAYS];
    int n;                     /* segments: the trunk, then the heads */
    am_train_segment *segment; /* [n] owned */
    int64_t reals;             /* of the gradient vector, its last element being for attention */

    int64_t epoch, step;    /* next to train, of this run; (0, 0) before it and after its end */
    int64_t steps, samples; /* behind, of this run */
    int64_t epoch_samples;  /* behind, of this epoch */
    am_exact loss;          /* summed over the samples of this epoch, this rank's leaves */

    am_arena arena;
    am_tensor_table tensors; /* owned: what is saved, see am_train_state_tensors */
} am_train_state;

/** Allocate arrays, all zero, for segments whose name, layout and at are set (layouts are moved,
 * also on error). array_name: [arrays], borrowed. Local, but size and rank of comm decide the
 * slices. Errors: AM_E_NOMEM; AM_E_RECIPE (too many tasks). */
int am_train_state_make(MPI_Comm comm, int bytes_per_real, bool is_sharded, int n,
                        am_train_segment *segment, int64_t reals, int arrays,
                        const char *const *array_name, am_train_state **out);
void am_train_state_free(am_train_state **state);

/** Slice of the gradient vector that rank `rank` steps: whole, or its part of the tree's. Pure. */
void am_train_state_slice(const am_train_state *state, int rank, int64_t *lo, int64_t *hi);

/** Elements of a segment in the slice of rank `rank`. Pure. */
void am_train_state_held(const am_train_state *state, int segment, int rank, int64_t *lo,
                         int64_t *hi);

/** Back to the start: zero arrays and counters. Local. */
void am_train_state_reset(am_train_state *state);

/** Tensors of a saved state: "trunk.layers.0.weight::momentum" of the real type, and
 * "::position", "::loss" of integers. The same for any number of ranks, sharded or not. Borrowed.
 */
const am_tensor_table *am_train_state_tensors(const am_train_state *state);

/** Store the whole state into a sink over am_train_state_tensors; every rank stores whole chunks of
 * its slice of the table.
 *
 * Collective [state->comm]. Memory: one tensor, when sharded. Errors: AM_E_NOMEM and those of the
 * sink, agreed. */
int am_train_state_store_all(const am_train_state *state, const am_sink *sink);

/** Fill a state made for the same network, tasks and options from a source that has its tensors.
 *
 * Local: every rank loads what it holds; agree afterwards. Errors: AM_E_DATA naming a tensor that
 * is missing or has another type or shape, or a position that is none; those of the source. */
int am_train_state_load(am_train_state *state, const am_source *source);

#endif
