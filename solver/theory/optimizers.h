/* What an optimiser does to theorem 1 (sweep.h): k epochs of it on every task alone, with learning
 * rate eta, against k epochs on the sum of the tasks, with learning rate alpha eta:
 *
 *     theta_TA^(k) = theta_0 + alpha sum_t (theta_t^(k) - theta_0)     against     theta_MT^(k)
 *
 * An optimiser whose step is linear in the gradients (gradient descent, with heavy ball or without)
 * has no gap after one step; one that divides by them, like AdamW, has. State is zero at the start
 * and kept over the k epochs. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_OPTIMIZERS_H
#define AM_SOLVER_THEORY_OPTIMIZERS_H

#include "solver/theory/sweep.h"
#include "solver/training/optim.h"

typedef struct am_theory_rule {
    /* Method (one that steps along the gradient: not am_train_ops.is_direct), momentum, betas,
     * epsilon. lr, decay and clip are not read: they are eta, 0 and 0. */
    am_optim_options optim;
    int64_t batches; /* steps of an epoch, each on a part of the samples; 1: full batch */
} am_theory_rule;

/* One (T, eta, optimiser, alpha, k). All fields are f64. */
typedef struct am_theory_compared {
    double gap;      /* |theta_TA - theta_MT| */
    double path;     /* |theta_MT - theta_0| */
    double relative; /* gap / path */
    double cosine;   /* of theta_TA - theta_0 with theta_MT - theta_0 */
    double noise;    /* what rounding may do to the gap, where steps are linear in gradients */
} am_theory_compared;

enum { AM_THEORY_COMPARED_REALS = sizeof(am_theory_compared) / sizeof(double) };

/** Compare for all alphas and k of the setting; its norms are not measured.
 *
 * Collective [oracle->comm]; all [same]. theta0 [n]; rows [n_alphas][n_k]. Memory: vectors as
 * below. Errors: AM_E_BUG (batches of a problem without samples), those of the oracle, AM_E_NOMEM.
 * A run that diverges is no error: its numbers are not finite. */
int am_theory_compare_all(const am_oracle *oracle, const double *theta0,
                          const am_theory_setting *setting, const am_theory_rule *rule,
                          am_theory_compared *rows);
/** Vectors of am_theory_compare_all. Pure. */
int64_t am_theory_compare_vectors(int64_t n_k);

#endif
