/* A file of training that is under way: what is trained, the optimiser's state and where it is. Or
 * of training that has ended: what was trained, alone. The same bytes for any number of ranks, and
 * it can be gone on with on any other. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SNAPSHOT_H
#define AM_JOBS_TRAINING_SNAPSHOT_H

#include "io/checkpoint/checkpoint.h"
#include "solver/training/train.h"

/* A block of parameters, equal on all ranks. */
typedef struct am_snapshot_part {
    const char *name;              /* "trunk" or the task's; borrowed */
    const am_param_layout *layout; /* borrowed; of params, or of a part of it */
    void *params;                  /* borrowed */
    am_tensor_table values;        /* owned: its tensors as "NAME.TENSOR::value" */
    int64_t *offset;               /* [values.n] owned: in params */
} am_snapshot_part;

typedef struct am_snapshot {
    MPI_Comm comm;          /* borrowed */
    am_train_state *state;  /* borrowed; NULL: training has ended */
    int n;                  /* parts */
    am_snapshot_part *part; /* [n] owned */
    am_tensor_table all;    /* owned: what a file holds */
} am_snapshot;

/** parts [n]: name, layout and params are read. Local. out: freed by am_snapshot_free, also after
 * an error. Errors: AM_E_DATA (a name is too long), AM_E_NOMEM. */
int am_snapshot_make(MPI_Comm comm, am_train_state *state, int n, const am_snapshot_part *parts,
                     am_snapshot *out);
void am_snapshot_free(am_snapshot *snapshot); /* accepts a zeroed one */

/** Write PATH, replacing what is there. Collective [comm]. Errors: those of the writer. */
int am_snapshot_save_all(const am_snapshot *snapshot, const char *path, const am_meta *meta);
/** Read PATH into the parts and the state. Collective [comm]. Errors: AM_E_DATA (of other
 * training), and those of the reader; agreed. */
int am_snapshot_load_all(const am_snapshot *snapshot, const char *path);

/** Numbers in the metadata of a file. A missing one is 0. */
int am_snapshot_set(am_meta *meta, const char *key, int64_t value);
int64_t am_snapshot_get(const am_meta *meta, const char *key);

#endif
