/* Networks as a problem for the theory: the tasks' mean losses over all their training samples as
 * functions of the trunk, with fixed heads, in f64. Data-parallel: the samples of a task are cut
 * into parts, each part's gradient or Hessian-vector product is made on one rank, and parts are
 * summed on the tree of mpi/reduce.h: the same bits for any number of ranks.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_NETWORK_H
#define AM_SOLVER_THEORY_NETWORK_H

#include "mpi/reduce.h"
#include "solver/theory/chain.h"
#include "solver/theory/oracle.h"
#include "solver/training/train.h"

typedef struct am_theory_net {
    MPI_Comm comm;       /* borrowed */
    const am_net *net;   /* borrowed, shaped */
    const am_task *task; /* [tasks] borrowed, with f64 heads */
    int tasks;
    int64_t parts;
    am_tree *tree;         /* owned: leaves of trunk and loss */
    double *sum;           /* [trunk + 1] owned */
    am_theory_chain chain; /* owned */
} am_theory_net;

/** Make the problem of `tasks`. parts >= 1: fixed by the recipe, never by ranks.
 *
 * Collective [comm]; all [same]; net, task and comm stay as they are while it lives. Both outputs
 * belong together: oracle->self is `out`, which must not move. Memory: those of the tree, a trunk,
 * and in a call the activations of a part. After a call that failed only free it. Errors:
 * AM_E_RECIPE (the network does not fit the samples), AM_E_NOMEM, those of the samples; agreed. */
int am_theory_net_make_all(MPI_Comm comm, const am_net *net, const am_task *task, int tasks,
                           int64_t parts, am_theory_net *out, am_oracle *oracle);
void am_theory_net_free(am_theory_net *self); /* accepts a zeroed one */

#endif
