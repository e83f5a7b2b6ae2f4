/* Regression mean of one matrix: the weights W whose products with the inputs of every model come
 * closest to what that model's weights make of them, sum_t |X_t (W - W_t)^T|^2 least. With a start
 * M, mostly the mean of the models, and G_t = X_t^T X_t with elements beside the diagonal times
 * alpha: W = M + E, E sum_t G_t = sum_t (W_t - M) G_t. Where the sum of the G_t is singular E is
 * the shortest solution, so that weights of directions that no model has seen are those of M.
 *
 *   begin -> add for every model -> solve
 *
 * Pure; on a grid every rank makes the same calls. Source: Jin et al. 2023 (arXiv:2212.09849),
 * equation 2. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_REGRESSION_H
#define AM_SOLVER_MERGE_REGRESSION_H

#include "solver/linalg/matrix.h"

typedef struct am_regression {
    double alpha;
    am_matrix start, right, gram; /* M, and the two sums so far */
} am_regression;

/** Bytes of an arena that begin takes, and that solve takes besides and gives back. on: the layout
 * of the matrices on a grid; NULL: whole. */
int64_t am_regression_bytes_on(const am_layout *on, int64_t rows, int64_t cols);
int64_t am_regression_solve_bytes_on(const am_layout *on, int64_t rows, int64_t cols, double alpha);

/** Take the arrays, which lie as `like` does, a matrix of the weights' size; out->start is the
 * caller's to fill. alpha: 0 to 1. */
void am_regression_begin(am_arena *work, am_matrix like, double alpha, am_regression *out);
/** A model with its Gram matrix, times `weight`; both are destroyed. */
void am_regression_add(am_regression *r, double weight, am_matrix model, am_matrix gram);
/** out = W; the sums are destroyed. Errors: AM_E_NUMERIC (not finite, not positive definite). */
int am_regression_solve(am_arena *work, am_regression *r, am_matrix out);

#endif
