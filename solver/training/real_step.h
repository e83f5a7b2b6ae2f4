/* A step: from the gradient vector to new weights, whole on every rank or by slices.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_STEP_H
#define AM_SOLVER_TRAINING_REAL_STEP_H

#include "solver/training/real_optim.h"
#include "solver/training/state.h"
#include "solver/training/train.h"

typedef struct am_stepper {
    am_train_state *state; /* borrowed */
    const am_optim *optim;
    am_optim_options options;  /* with the learning rate of this step */
    am_optim_options no_decay; /* the same for tensors without decay */
    bool **decays;             /* [segments][tensors] owned */
    real **w;                  /* [segments] borrowed weights */
    am_exact *norms;           /* [2 * most tensors] owned; NULL without a trust ratio */
    int64_t *lengths;          /* [2][size] owned scratch: messages; NULL when not sharded */
    am_exact *energy;          /* [tensors of the trunk's segment] owned; NULL: not wanted */
    am_exact norm2;            /* of the gradient: squares */
    double norm;               /* of the last gradient */
    bool has_master;           /* the last array of the state is the weights in f32 */
} am_stepper;

/** Prepare steps of `state`, whose weights of segment i are w[i] (copied array of pointers).
 * Fresh masters are filled from the weights, and those rounded. Local. Errors: AM_E_NOMEM. */
int AM_R(am_stepper_make)(am_train_state *state, const am_optim_options *options, real *const *w,
                          bool wants_energy, am_stepper *out);
void AM_R(am_stepper_free)(am_stepper *stepper);

/** One step of the segments listed in segment[0..n), in order, from the gradient vector g, which
 * may be overwritten. *attention, sharded only: in, whether this rank asks for it; out, whether any
 * rank did, and then nothing has moved.
 *
 * Collective [state->comm] when the state is sharded, else local. When the norm of the gradient is
 * not finite, *diverged is set; nothing has moved if sharded, clipped or with a trust ratio, or if
 * the first element of g is not finite; else the step ends at the same element on every rank. */
int AM_R(am_stepper_step_all)(am_stepper *stepper, double lr, real *g, const int *segment, int n,
                              bool *attention, bool *diverged);

#endif
