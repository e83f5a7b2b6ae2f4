/* A pass over every block of some checkpoints, each block on one rank, with read-ahead: what
 * convert, diff, inspect and verify share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_SWEEP_H
#define AM_JOBS_SWEEP_H

#include <mpi.h>
#include "mpi/block.h"

typedef struct am_sweep {
    const am_tensor_table *tensors; /* what to visit, in name order */
    int n_sources;                  /* 1 or 2 */
    const am_source *source[2];
    const int64_t *index[2]; /* tensor i of `tensors` in the source; NULL: the same index */
    /* Called for whole chunks: [lo, lo+n) with n <= AM_CHUNK * 4, never across a block. Local. */
    int (*visit)(void *self, int64_t tensor, int64_t lo, int64_t n);
    /* End of a batch, may be NULL. Local. */
    int (*flush)(void *self);
    void *self;
    const char *title; /* for progress and the watchdog */
} am_sweep;

enum { AM_SWEEP_ELEMENTS = 65536 * 4 }; /* the largest n of a visit */

/** Visit everything once. Collective [comm]; the tables [same]. Blocks are shared out by bytes, in
 * name order; agreement every batch, stop requests are AM_E_STOPPED. */
int am_sweep_all(MPI_Comm comm, const am_sweep *sweep);

#endif
