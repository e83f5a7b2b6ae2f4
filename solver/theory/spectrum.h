/* The largest curvature of a task. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_SPECTRUM_H
#define AM_SOLVER_THEORY_SPECTRUM_H

#include "solver/theory/oracle.h"

/** Norm of the Hessian of L_t at theta: the largest |eigenvalue| by Lanczos from a random vector,
 * and its residual (1e-4 of it, if 80 products are enough for that) on top. NaN where a product is
 * not finite. Collective [oracle->comm]; all [same]. Errors: those of the oracle, AM_E_NOMEM. */
int am_theory_hessian_norm_all(const am_oracle *oracle, int task, const double *theta,
                               uint64_t seed, double *norm);

/** Spectral norm of a matrix w [rows][columns], with `bias` [rows] as one more column if it is not
 * NULL: power iteration until it moves by 1e-12 of itself. Local. Errors: AM_E_NOMEM. */
int am_theory_matrix_norm(int64_t rows, int64_t columns, const double *w, const double *bias,
                          double *norm);

#endif
