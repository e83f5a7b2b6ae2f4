/* Dense matrices of f64 in memory: views, and products by BLAS. Nothing here allocates: a matrix
 * lies where its caller says, mostly in an arena. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_MATRIX_H
#define AM_SOLVER_LINALG_MATRIX_H

#include <stdint.h>
#include "mpi/arena.h"

/* Row-major: element (i, j) is at[i * step + j]. */
typedef struct am_matrix {
    int64_t rows, cols, step;
    double *at;
} am_matrix;

/* How an operand of a product is read. */
typedef enum am_turn { AM_AS_IS, AM_TRANSPOSED } am_turn;

/** All of at [rows, cols]. */
am_matrix am_matrix_of(int64_t rows, int64_t cols, double *at);
/** A new one from an arena; contents undefined. */
am_matrix am_matrix_take(am_arena *arena, int64_t rows, int64_t cols);
/** Bytes that am_matrix_take takes. */
int64_t am_matrix_bytes(int64_t rows, int64_t cols);
/** Rows [row, row + rows) and columns [col, col + cols) of a. */
am_matrix am_matrix_part(am_matrix a, int64_t row, int64_t col, int64_t rows, int64_t cols);

/** b = a; both of the same size. */
void am_matrix_copy(am_matrix a, am_matrix b);
/** b = a^T. */
void am_matrix_transpose(am_matrix a, am_matrix b);
/** a = value everywhere. */
void am_matrix_fill(am_matrix a, double value);
/** b += factor a. */
void am_matrix_add(double factor, am_matrix a, am_matrix b);
/** Row i of a *= factor[i], i < a.rows. */
void am_matrix_scale_rows(am_matrix a, const double *factor);
/** sqrt of the sum of squares, without overflow where the result has none. */
double am_matrix_norm(am_matrix a);

/** c = alpha op(a) op(b) + beta c; c does not overlap the others, and beta 0 does not read it.
 * One thread: the same bits on any number of ranks (one kind of processor). Sizes fit 32 bits:
 * what reaches a factorisation was checked (checked.h). */
void am_multiply(double alpha, am_matrix a, am_turn turn_a, am_matrix b, am_turn turn_b,
                 double beta, am_matrix c);

#endif
