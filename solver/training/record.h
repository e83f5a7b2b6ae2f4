/* What a training run measures beside the result: one record an epoch, or a part of one when it is
 * trained in several calls. All values but seconds are the same bits on any number of ranks, and
 * however many calls make an epoch: sums are exact until they are told.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_RECORD_H
#define AM_SOLVER_TRAINING_RECORD_H

#include "mpi/reduce.h"

/* Some steps of one epoch. */
typedef struct am_train_record {
    int64_t epoch;          /* of the whole run, from 0 */
    int64_t steps, samples; /* measured */
    double loss;            /* mean over the epoch's samples so far, nats */
    am_exact norm_sum;      /* over the steps, of the norms of the gradients before clipping */
    double norm_most, norm_last;
    double seconds; /* wall time of this rank */
} am_train_record;

typedef struct am_train_log {
    int64_t n, room, tensors;
    am_train_record *record; /* [room] owned */
    am_exact *energy; /* [room][tensors] owned: squared norms of the updates, over the steps */
} am_train_log;

/** Room for the records of `epochs` epochs of a trunk of `tensors` tensors; filled by train_all.
 * Local. out: freed by am_train_log_free, also after an error. Errors: AM_E_NOMEM. */
int am_train_log_make(int64_t tensors, int64_t epochs, am_train_log *out);
void am_train_log_free(am_train_log *log);
/** Forget all records. Local. */
void am_train_log_clear(am_train_log *log);
/** The record of an epoch: the newest one, or a new one. Local. */
am_train_record *am_train_log_at(am_train_log *log, int64_t epoch);
/** [tensors] of record k. Pure. */
am_exact *am_train_log_energy(const am_train_log *log, int64_t k);

#endif
