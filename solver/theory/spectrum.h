/* The largest curvatures of tasks and of their sum. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_THEORY_SPECTRUM_H
#define AM_SOLVER_THEORY_SPECTRUM_H

#include "solver/analysis/eigen.h"
#include "solver/theory/oracle.h"

/** Norm of the Hessian of L_t at theta: the largest |eigenvalue| by Lanczos, and its residual (1e-4
 * of it, if 80 products are enough for that) on top. NaN where a product is not finite.
 *
 * vector  [n] in: the eigenvector of a Hessian nearby, or zeros; out: the one that was found. The
 *         search begins there with a random vector mixed in, so that another direction that has
 *         overtaken it by far is found, too: 5 products in place of 10 to 15
 *
 * The value comes from below and the residual tells how near an eigenvalue is. Should that not be
 * the largest one, the norm, and a bound made of it, are too small: a bound that holds with it
 * holds with the true one.
 *
 * Collective [oracle->comm]; all [same]. Errors: those of the oracle, AM_E_NOMEM; agreed. */
int am_theory_hessian_norm_all(const am_oracle *oracle, int task, const double *theta,
                               uint64_t seed, double *vector, double *norm);

/** The `wanted` algebraically largest eigenvalues of the Hessian of sum_t L_t, t in [first, end),
 * at theta, descending, and their residuals: by Lanczos until these are below 1e-6 of the largest
 * |eigenvalue|, with am_theory_spectrum_products at most. Those that repeat: see am_eigen_lanczos.
 *
 * Collective [oracle->comm]; all [same]. 1 <= wanted <= n; first < end. result: the caller's arrays
 * [wanted], no vectors; NaN where a product is not finite. Errors: those of the oracle, AM_E_NOMEM;
 * agreed. */
int am_theory_spectrum_all(const am_oracle *oracle, int first, int end, const double *theta,
                           int wanted, uint64_t seed, am_eigen_result *result);
/** Products at most for `wanted` eigenvalues of an operator of order n. Pure. */
int am_theory_spectrum_products(int64_t n, int wanted);
/** Bytes that a norm and a spectrum take if all products are needed: two vectors more than these.
 * Pure. */
int64_t am_theory_hessian_norm_bytes(int64_t n);
int64_t am_theory_spectrum_bytes(int64_t n, int wanted);

/** Spectral norm of a matrix w [rows][columns], with `bias` [rows] as one more column if it is not
 * NULL: power iteration until it moves by 1e-12 of itself. Local. Errors: AM_E_NOMEM. */
int am_theory_matrix_norm(int64_t rows, int64_t columns, const double *w, const double *bias,
                          double *norm);

#endif
