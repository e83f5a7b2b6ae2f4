/* What the theory asks of a problem: losses, gradients and Hessian-vector products of tasks that
 * share their parameters. Vectors are whole f64 arrays, the same on every rank.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_ORACLE_H
#define AM_SOLVER_THEORY_ORACLE_H

#include <mpi.h>
#include <stdint.h>

typedef struct am_oracle {
    MPI_Comm comm; /* borrowed */
    int tasks;
    int64_t n; /* parameters */
    void *self;
    /* L_t(theta) and its gradient [n]. Collective [comm]; all [same]. Errors are agreed. */
    int (*gradient_all)(void *self, int task, const double *theta, double *loss, double *gradient);
    /* The same on part `batch` of `batches` of the task's samples, in their order. NULL: the
     * problem has no samples. */
    int (*batch_all)(void *self, int task, int64_t batch, int64_t batches, const double *theta,
                     double *loss, double *gradient);
    /* out [n] := Hessian of L_t at theta, times v. Collective [comm]; all [same]. Errors are
     * agreed. */
    int (*product_all)(void *self, int task, const double *theta, const double *v, double *out);
    /* Upper bounds, over the first `tasks` tasks, of the norms of gradient and Hessian at theta
     * from the structure of the problem alone. NULL: there are none. Local; all [same]. */
    int (*constants)(void *self, int tasks, const double *theta, double *gradient, double *hessian);
} am_oracle;

#endif
