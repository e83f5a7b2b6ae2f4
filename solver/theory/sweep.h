/* Theorem 1 of "On Task Vectors and Gradients" (arXiv 2508.16082), measured. Full-batch gradient
 * descent with step eta for k epochs, from theta_0, on every task alone (theta_t) and on the sum of
 * the tasks with step alpha eta (theta_MT):
 *
 *     theta_TA^(k) = theta_0 + alpha sum_t (theta_t^(k) - theta_0)
 *     theta_TA^(k) - theta_MT^(k) = alpha eta^2 C + O(eta^3)                            the gap
 *     C = sum_t sum_{e=0}^{k-2} H_t(theta_MT^(e)) sum_{m=0}^{e} r_t(theta_MT^(m))
 *     r_t = grad L_t - alpha sum_s grad L_s
 *
 * For k = 1 there is no gap. The factor alpha before C is derived; the paper as summarised lacks
 * it.
 *
 * A trajectory is kept as its displacement from theta_0, so that small steps are not rounded to the
 * grid of theta_0: theta^(i) is theta_0 + displacement, rounded, wherever a gradient is asked for.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_SWEEP_H
#define AM_SOLVER_THEORY_SWEEP_H

#include <stdbool.h>
#include "solver/theory/oracle.h"

/* Rounding of a gradient, in units of its norm: a guess on the safe side, for `noise`. */
#define AM_THEORY_GRADIENT_NOISE (256 * 0x1p-53)

typedef struct am_theory_setting {
    int tasks; /* T: the first so many of the oracle's */
    double eta;
    int n_alphas;
    const double *alpha; /* [n_alphas] */
    int n_k;
    const int64_t *k; /* [n_k] ascending, from 1 */
    bool has_norms;   /* measure norms of Hessians: Lanczos, some products each */
    uint64_t seed;    /* of Lanczos' first vectors */
} am_theory_setting;

/* One (T, eta, alpha, k). All fields are f64, so that a row is stored as an array of them. What was
 * not measured is NaN. */
typedef struct am_theory_row {
    double gap;      /* |theta_TA - theta_MT| */
    double term;     /* alpha eta^2 |C| */
    double residual; /* |theta_TA - theta_MT - alpha eta^2 C| */
    double noise;    /* what rounding may do to the gap */
    double ulps;     /* k = 1: largest distance of an element, in units in the last place */
    double loss;     /* sum_t L_t(theta_MT^(k-1)) */
    double c;        /* |C| */
    /* On theta_MT^(0), ..., theta_MT^(k-2), over the tasks: the largest norm of a gradient and of a
     * Hessian, as measured and as the structure of the network bounds them. */
    double gradient, hessian, net_gradient, net_hessian;
    /* Theorem 2's bounds of |C| from these. */
    double printed, derived, net_printed, net_derived;
} am_theory_row;

/* One (T, eta, task, epoch): gradient descent on a task alone. */
typedef struct am_theory_epoch {
    double loss;         /* L_t(theta_t^(i)) */
    double norm;         /* |grad L_t(theta_t^(i))| */
    double share;        /* of the sum of these norms over the epochs, 0..1 */
    double cosine_first; /* of grad L_t(theta_t^(i)) with grad L_t(theta_0) */
    double cosine_tau;   /* of theta_t^(i+1) - theta_0 with -grad L_t(theta_0) */
} am_theory_epoch;

enum {
    AM_THEORY_ROW_REALS = sizeof(am_theory_row) / sizeof(double),
    AM_THEORY_EPOCH_REALS = sizeof(am_theory_epoch) / sizeof(double)
};

/** Measure one eta for all alphas and k.
 *
 * Collective [oracle->comm]; all [same]. theta0 [n]; rows [n_alphas][n_k]; epochs
 * [tasks][k[n_k - 1]]. Memory: vectors as below. Errors: those of the oracle (a stop
 * request among them), AM_E_NOMEM. A run that diverges is no error: its numbers are not finite. */
int am_theory_measure_all(const am_oracle *oracle, const double *theta0,
                          const am_theory_setting *setting, am_theory_row *rows,
                          am_theory_epoch *epochs);
/** Vectors of am_theory_measure_all; with norms am_theory_hessian_norm_bytes comes on top. Pure. */
int64_t am_theory_measure_vectors(int64_t tasks, int64_t n_k, bool has_norms);

/** theta [n] := theta_MT^(epochs), the same bits as on the way of am_theory_measure_all: descent on
 * the sum of the first `tasks` tasks with step = alpha eta. Collective [oracle->comm]; all [same].
 * Memory: 3 vectors. Errors: those of the oracle, AM_E_NOMEM. */
int am_theory_descend_all(const am_oracle *oracle, const double *theta0, int tasks, double step,
                          int64_t epochs, double *theta);

#endif
