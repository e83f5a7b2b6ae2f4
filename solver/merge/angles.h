/* Arithmetic that methods on angles share: what they merge is sum_t c_t x_t, with coefficients c
 * that follow from the Gram matrix of the models, or of their task vectors. Small vectors and
 * matrices of f64, no memory of its own. All functions are local and pure.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_ANGLES_H
#define AM_SOLVER_MERGE_ANGLES_H

#include "solver/merge/method.h"

/* ---- parts of a descriptor ---- */

/* A parameter that scales task vectors: 1 unless the recipe says otherwise. */
#define AM_FACTOR_PARAM(name, is_per_model, text)                                                  \
    {                                                                                              \
        .key = name, .per_model = is_per_model, .fallback = 1, .low = -100, .high = 100,           \
        .help = text                                                                               \
    }
/* Fields of a method whose `solver` makes one coefficient a model from the Gram matrix. */
#define AM_GRAM_METHOD(solver)                                                                     \
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL, .states = am_coefficient_states, .n_passes = 1,   \
    .pass = {{.count = am_gram_count, .sums = am_tile_gram, .solve = solver}},                     \
    .combine = am_coefficient_combine

/** `count` of a pass whose `sums` is am_tile_gram: T(T+1)/2. */
int am_gram_count(const am_unit *unit);
/** `states` of a method whose state is one coefficient a model. */
int am_coefficient_states(const am_unit *unit);
/** `combine` of such a method: am_tile_combine with the unit's state. */
void am_coefficient_combine(const am_tile *tile);

/** out = sum_t c_t x_t, or base + sum_t c_t (x_t - base) when the tile has a base, models in their
 * order. c [T] */
void am_tile_combine(const am_tile *tile, const double *c);

/** One row of a tile by rows as a tile of its own. x [T] storage for the view's inputs. */
am_tile am_tile_row(const am_tile *tile, int64_t row, const double **x);

/* ---- coefficients; gram: lower triangle as am_tile_gram gives it ---- */

/** Point at t on the great arc between two vectors of raw lengths, cosine in (-1, 1):
 * c[0] = sin((1 - t) theta) / sin(theta), c[1] = sin(t theta) / sin(theta). */
void am_arc(double t, double cosine, double *c);
/** Length of sum_t c_t x_t. A square that rounding made negative is zero. */
double am_gram_norm(const double *gram, int n, const double *c);
/** Inner product of x_i with sum_t c_t x_t. */
double am_gram_dot(const double *gram, int n, int i, const double *c);

/** Eigenvalues and -vectors of a symmetric matrix by cyclic Jacobi rotations.
 *
 * a [n,n] in: the matrix, out: its diagonal holds the eigenvalues;  v [n,n] out: column k belongs
 * to a[k,k]. Returns false when 60 sweeps did not reach rounding (not finite). Source: Golub and
 * Van Loan, Matrix Computations, section 8.5. */
bool am_eigen_symmetric(double *a, double *v, int n);

#endif
