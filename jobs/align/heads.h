/* Heads of two networks, and those of the one that is made of them. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_JOBS_ALIGN_HEADS_H
#define AM_JOBS_ALIGN_HEADS_H

#include "io/checkpoint/checkpoint.h"
#include "solver/align/pleas.h"

/* Heads of a file, f64. */
typedef struct am_head_file {
    am_tensor_table tensors; /* owned; all heads have weight and bias */
    int64_t *offset;         /* [tensors.n] owned */
    int64_t n;               /* reals */
    double *block;           /* [n] owned; NULL until they are loaded */
} am_head_file;

typedef struct am_head_pair {
    am_head_file of[2], merged; /* merged: its block in f64 too */
    int n;
    am_pleas_head *head; /* [n] owned, into the blocks; NULL until they are loaded */
    int64_t classes;     /* of the head that has most */
} am_head_pair;
void am_head_pair_free(am_head_pair *heads); /* accepts a zeroed one */

/** Look at the heads of two networks, [classes, features], and lay out those of the merged one,
 * [classes, merged features]: all that one of them has. Collective [comm]. out: freed by the
 * caller, also after an error. Errors: AM_E_DATA (no heads, other shapes, classes that differ),
 * those of checkpoints; agreed. */
int am_head_pair_open_all(MPI_Comm comm, const char *const path[2], int64_t features,
                          int64_t merged, am_head_pair *out);
/** Read them, and make room for the merged ones. Collective [comm]. Errors: those of
 * am_networks_load_all, AM_E_NOMEM; agreed. */
int am_head_pair_load_all(MPI_Comm comm, const char *const path[2], am_head_pair *heads);
/** Bytes of all that beside the heads of these n tasks, which the plan of a recipe has, and of a
 * copy of the merged ones to write. Pure. */
int64_t am_head_pair_bytes(const am_head_pair *heads, char *const *task, int n);

#endif
