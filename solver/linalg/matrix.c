/* Dense matrices: see matrix.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/matrix.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"
#include "solver/linalg/vectors.h"

extern void dgemm_(const char *turn_a, const char *turn_b, const int *m, const int *n, const int *k,
                   const double *alpha, const double *a, const int *lda, const double *b,
                   const int *ldb, const double *beta, double *c, const int *ldc, size_t length_a,
                   size_t length_b);

am_matrix am_matrix_of(int64_t rows, int64_t cols, double *at)
{
    return (am_matrix){.rows = rows, .cols = cols, .step = cols, .at = at};
}

int64_t am_matrix_bytes(int64_t rows, int64_t cols)
{
    return (int64_t)am_arena_need((size_t)(rows * cols) * sizeof(double));
}

am_matrix am_matrix_take(am_arena *arena, int64_t rows, int64_t cols)
{
    return am_matrix_of(rows, cols, am_arena_take(arena, (size_t)(rows * cols) * sizeof(double)));
}

am_matrix am_matrix_part(am_matrix a, int64_t row, int64_t col, int64_t rows, int64_t cols)
{
    AM_ASSERT(row >= 0 && col >= 0 && row + rows <= a.rows && col + cols <= a.cols);
    return (am_matrix){.rows = rows, .cols = cols, .step = a.step, .at = a.at + row * a.step + col};
}

void am_matrix_copy(am_matrix a, am_matrix b)
{
    AM_ASSERT(a.rows == b.rows && a.cols == b.cols);
    for (int64_t i = 0; i < a.rows; i++) {
        memcpy(b.at + i * b.step, a.at + i * a.step, (size_t)a.cols * sizeof *a.at);
    }
}

/* Square by square, so that lines of the cache are used whole. */
void am_matrix_transpose(am_matrix a, am_matrix b)
{
    enum { SQUARE = 32 };
    AM_ASSERT(a.rows == b.cols && a.cols == b.rows);
    for (int64_t r = 0; r < a.rows; r += SQUARE) {
        for (int64_t c = 0; c < a.cols; c += SQUARE) {
            for (int64_t i = r; i < r + SQUARE && i < a.rows; i++) {
                for (int64_t j = c; j < c + SQUARE && j < a.cols; j++) {
                    b.at[j * b.step + i] = a.at[i * a.step + j];
                }
            }
        }
    }
}

void am_matrix_fill(am_matrix a, double value)
{
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            a.at[i * a.step + j] = value;
        }
    }
}

void am_matrix_add(double factor, am_matrix a, am_matrix b)
{
    AM_ASSERT(a.rows == b.rows && a.cols == b.cols);
    for (int64_t i = 0; i < a.rows; i++) {
        am_vector_add(a.cols, factor, a.at + i * a.step, b.at + i * b.step);
    }
}

void am_matrix_scale_rows(am_matrix a, const double *factor)
{
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            a.at[i * a.step + j] *= factor[i];
        }
    }
}

double am_matrix_norm(am_matrix a)
{
    double largest = 0, sum = 0;
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            largest = fmax(largest, fabs(a.at[i * a.step + j]));
        }
    }
    if (largest == 0) {
        return 0;
    }
    int exponent = 0;
    (void)frexp(largest, &exponent);
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j++) {
            const double x = ldexp(a.at[i * a.step + j], -exponent);
            sum += x * x;
        }
    }
    return ldexp(sqrt(sum), exponent);
}

/* Fortran sees row-major matrices transposed: c^T = op(b)^T op(a)^T. */
void am_multiply(double alpha, am_matrix a, am_turn turn_a, am_matrix b, am_turn turn_b,
                 double beta, am_matrix c)
{
    const int64_t rows = turn_a == AM_AS_IS ? a.rows : a.cols;
    const int64_t inner = turn_a == AM_AS_IS ? a.cols : a.rows;
    const int64_t cols = turn_b == AM_AS_IS ? b.cols : b.rows;
    const int m = am_int(cols), n = am_int(rows), k = am_int(inner);
    const int lda = am_int(a.step), ldb = am_int(b.step), ldc = am_int(c.step);
    AM_ASSERT(c.rows == rows && c.cols == cols);
    AM_ASSERT(inner == (turn_b == AM_AS_IS ? b.rows : b.cols));
    if (rows == 0 || cols == 0) {
        return;
    }
    if (inner == 0) { /* steps of 0 are no leading dimensions */
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < cols; j++) {
                c.at[i * c.step + j] = beta == 0 ? 0 : beta * c.at[i * c.step + j];
            }
        }
        return;
    }
    am_blas_single_thread();
    am_alive("products of matrices");
    dgemm_(turn_b == AM_AS_IS ? "N" : "T", turn_a == AM_AS_IS ? "N" : "T", &m, &n, &k, &alpha, b.at,
           &ldb, a.at, &lda, &beta, c.at, &ldc, 1, 1);
}
