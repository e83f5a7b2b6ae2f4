/* Dense matrices of f64 in memory: views, and products by BLAS. Nothing here allocates: a matrix
 * lies where its caller says, mostly in an arena.
 *
 * A matrix lies whole on this rank, or is spread over the ranks of a process grid (grid.h). What
 * works on matrices takes both: operands of one call lie alike, and on a grid every rank of it
 * makes the same calls, in the same order, and gets the same answers: numbers, codes and messages.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_MATRIX_H
#define AM_SOLVER_LINALG_MATRIX_H

#include <stdint.h>
#include "mpi/arena.h"
#include "solver/linalg/layout.h"

typedef struct am_grid am_grid;

/* Row-major: element (i, j) of a whole matrix is at[i * step + j]. On a grid `at` is where the
 * spread matrix begins on this rank, of which this is a view; its elements: am_matrix_local. */
typedef struct am_matrix {
    int64_t rows, cols, step;
    double *at;
    const am_grid *grid; /* NULL: whole on this rank */
    int64_t row, col;    /* on a grid: where the view begins */
} am_matrix;

/* How an operand of a product is read. */
typedef enum am_turn { AM_AS_IS, AM_TRANSPOSED } am_turn;

/** All of at [rows, cols]. */
am_matrix am_matrix_of(int64_t rows, int64_t cols, double *at);
/** A new one from an arena; contents undefined. */
am_matrix am_matrix_take(am_arena *arena, int64_t rows, int64_t cols);
/** Bytes that am_matrix_take takes. */
int64_t am_matrix_bytes(int64_t rows, int64_t cols);
/** The same of a matrix that lies as `like` does: whole, or spread over its grid. */
am_matrix am_matrix_take_like(am_arena *arena, am_matrix like, int64_t rows, int64_t cols);
/** Bytes that am_matrix_take_like takes, the same on all ranks of a grid. on: its layout; NULL:
 * whole. */
int64_t am_matrix_bytes_on(const am_layout *on, int64_t rows, int64_t cols);
/** Rows [row, row + rows) and columns [col, col + cols) of a. */
am_matrix am_matrix_part(am_matrix a, int64_t row, int64_t col, int64_t rows, int64_t cols);

/** The elements of a that this rank has, as a whole matrix; a itself if it is whole. Views that
 * begin at equal places of matrices of one grid have their elements at equal places here. */
am_matrix am_matrix_local(am_matrix a);
/** Row and column of a that its element (i, j) here lies in. */
int64_t am_matrix_row(am_matrix a, int64_t i);
int64_t am_matrix_col(am_matrix a, int64_t j);

/** b = a; both of the same size. */
void am_matrix_copy(am_matrix a, am_matrix b);
/** b = a^T. */
void am_matrix_transpose(am_matrix a, am_matrix b);
/** a = value everywhere. */
void am_matrix_fill(am_matrix a, double value);
/** b += factor a. */
void am_matrix_add(double factor, am_matrix a, am_matrix b);
/** a += value on the diagonal. */
void am_matrix_add_diagonal(double value, am_matrix a);
/** a *= factor. */
void am_matrix_scale(am_matrix a, double factor);
/** Row i of a *= factor[i], i < a.rows. */
void am_matrix_scale_rows(am_matrix a, const double *factor);
/** sqrt of the sum of squares, without overflow where the result has none. */
double am_matrix_norm(am_matrix a);
/** a /= 2^*exponent, exactly but for what is below 2^-1022 then: 1/2 <= |a| < 1, whose squares
 * neither overflow nor vanish. Returns false for zero, which stays. */
bool am_matrix_normalise(am_matrix a, int *exponent);
/** sum_ij a_ij b_ij. */
double am_matrix_inner(am_matrix a, am_matrix b);
/** |gram - 1| with gram = a a^T, or a^T a where a has more rows than columns: what these lack to be
 * orthonormal. gram [k,k], k = min(rows, cols): scratch that lies as `a` does. */
double am_matrix_skewness(am_matrix a, am_matrix gram);
/** The sum of what every rank that shares `a` passes, of a whole matrix: x itself. */
double am_matrix_total(am_matrix a, double x);

/** c = alpha op(a) op(b) + beta c; c does not overlap the others, and beta 0 does not read it.
 * One thread: the same bits on any number of ranks (one kind of processor); on a grid those of its
 * layout. Sizes fit 32 bits:
 * what reaches a factorisation was checked (checked.h). */
void am_multiply(double alpha, am_matrix a, am_turn turn_a, am_matrix b, am_turn turn_b,
                 double beta, am_matrix c);

#endif
