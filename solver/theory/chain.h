/* Constants of theorem 2 for trunks that are chains of fully connected layers: spectral norms of
 * the weights, the largest input, the functions' derivatives. SPDX-License-Identifier: BSD-3-Clause
 */
#ifndef AM_SOLVER_THEORY_CHAIN_H
#define AM_SOLVER_THEORY_CHAIN_H

#include "solver/theory/bound.h"
#include "solver/training/train.h"

typedef struct am_theory_chain {
    int n;                                   /* layers and the head; 0: the trunk is another one */
    am_theory_layer layer[AM_THEORY_LAYERS]; /* without norms; the last one is the head */
    double *input;                           /* [tasks] owned: the largest norm of a sample */
    double (*head)[2];                       /* [tasks] owned: norms of W and [W b] of the head */
} am_theory_chain;

/** Look at a shaped network and the tasks, with f64 heads. Another network gives out->n = 0.
 * Collective [comm]; all [same]. Errors: AM_E_NOMEM, those of the samples; agreed. */
int am_theory_chain_make_all(MPI_Comm comm, const am_net *net, const am_task *task, int tasks,
                             am_theory_chain *out);
void am_theory_chain_free(am_theory_chain *chain); /* accepts a zeroed one */

/** Bounds of the norms of gradient and Hessian of the first `tasks` tasks at a trunk; chain->n > 0.
 * Local. Errors: AM_E_NOMEM. */
int am_theory_chain_bounds(const am_theory_chain *chain, const am_net *net, int tasks,
                           const double *trunk, double *gradient, double *hessian);

#endif
