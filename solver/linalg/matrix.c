/* Dense matrices: see matrix.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/matrix.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/watchdog.h"
#include "solver/linalg/blas.h"
#include "solver/linalg/grid.h"
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

int64_t am_matrix_bytes_on(const am_layout *on, int64_t rows, int64_t cols)
{
    return on == NULL ? am_matrix_bytes(rows, cols)
                      : am_matrix_bytes(am_layout_most(on, rows, on->rows),
                                        am_layout_most(on, cols, on->cols));
}

am_matrix am_matrix_take_like(am_arena *arena, am_matrix like, int64_t rows, int64_t cols)
{
    const am_grid *g = like.grid;
    if (g == NULL) {
        return am_matrix_take(arena, rows, cols);
    }
    return (am_matrix){.rows = rows,
                       .cols = cols,
                       .step = am_layout_count(&g->layout, cols, g->col, g->layout.cols),
                       .at =
                           am_arena_take(arena, (size_t)am_matrix_bytes_on(&g->layout, rows, cols)),
                       .grid = g};
}

am_matrix am_matrix_part(am_matrix a, int64_t row, int64_t col, int64_t rows, int64_t cols)
{
    AM_ASSERT(row >= 0 && col >= 0 && row + rows <= a.rows && col + cols <= a.cols);
    if (a.grid != NULL) {
        am_matrix part = a;
        part.rows = rows;
        part.cols = cols;
        part.row += row;
        part.col += col;
        return part;
    }
    return (am_matrix){.rows = rows, .cols = cols, .step = a.step, .at = a.at + row * a.step + col};
}

am_matrix am_matrix_local(am_matrix a)
{
    const am_grid *g = a.grid;
    if (g == NULL) {
        return a;
    }
    const am_layout *on = &g->layout;
    const int64_t row = am_layout_count(on, a.row, g->row, on->rows);
    const int64_t col = am_layout_count(on, a.col, g->col, on->cols);
    return (am_matrix){.rows = am_layout_count(on, a.row + a.rows, g->row, on->rows) - row,
                       .cols = am_layout_count(on, a.col + a.cols, g->col, on->cols) - col,
                       .step = a.step,
                       .at = a.at + row * a.step + col};
}

/* Of a view from `first` on: which of its rows, or columns, the i-th one here is. */
static int64_t place(const am_layout *on, int64_t first, int64_t i, int index, int parts)
{
    const int64_t before = am_layout_count(on, first, index, parts);
    return am_layout_place(on, i + before, index, parts) - first;
}

int64_t am_matrix_row(am_matrix a, int64_t i)
{
    const am_grid *g = a.grid;
    return g == NULL ? i : place(&g->layout, a.row, i, g->row, g->layout.rows);
}

int64_t am_matrix_col(am_matrix a, int64_t j)
{
    const am_grid *g = a.grid;
    return g == NULL ? j : place(&g->layout, a.col, j, g->col, g->layout.cols);
}

/* Whether the elements of two views lie on the same ranks, at the same places of am_matrix_local.
 */
static bool lies_alike(am_matrix a, am_matrix b)
{
    const am_layout *on = a.grid != NULL ? &a.grid->layout : NULL;
    AM_ASSERT(a.rows == b.rows && a.cols == b.cols && a.grid == b.grid);
    return on == NULL || ((a.row - b.row) % (on->block * on->rows) == 0 &&
                          (a.col - b.col) % (on->block * on->cols) == 0);
}

void am_matrix_copy(am_matrix a, am_matrix b)
{
    if (!lies_alike(a, b)) {
        a.grid->ops->add(1, a, AM_AS_IS, 0, b);
        return;
    }
    const am_matrix from = am_matrix_local(a), to = am_matrix_local(b);
    for (int64_t i = 0; i < from.rows; i++) {
        memcpy(to.at + i * to.step, from.at + i * from.step, (size_t)from.cols * sizeof *from.at);
    }
}

/* Square by square, so that lines of the cache are used whole. */
void am_matrix_transpose(am_matrix a, am_matrix b)
{
    enum { SQUARE = 32 };
    AM_ASSERT(a.rows == b.cols && a.cols == b.rows && a.grid == b.grid);
    if (a.grid != NULL) {
        a.grid->ops->add(1, a, AM_TRANSPOSED, 0, b);
        return;
    }
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
    const am_matrix here = am_matrix_local(a);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] = value;
        }
    }
}

void am_matrix_add(double factor, am_matrix a, am_matrix b)
{
    if (!lies_alike(a, b)) {
        a.grid->ops->add(factor, a, AM_AS_IS, 1, b);
        return;
    }
    const am_matrix from = am_matrix_local(a), to = am_matrix_local(b);
    for (int64_t i = 0; i < from.rows; i++) {
        am_vector_add(from.cols, factor, from.at + i * from.step, to.at + i * to.step);
    }
}

void am_matrix_add_diagonal(double value, am_matrix a)
{
    const am_matrix here = am_matrix_local(a);
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(a, i);
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] += am_matrix_col(a, j) == row ? value : 0;
        }
    }
}

void am_matrix_scale(am_matrix a, double factor)
{
    const am_matrix here = am_matrix_local(a);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] *= factor;
        }
    }
}

void am_matrix_scale_rows(am_matrix a, const double *factor)
{
    const am_matrix here = am_matrix_local(a);
    for (int64_t i = 0; i < here.rows; i++) {
        const double one = factor[am_matrix_row(a, i)];
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] *= one;
        }
    }
}

double am_matrix_total(am_matrix a, double x)
{
    return a.grid == NULL ? x : a.grid->ops->total(a.grid, x);
}

/* |a| / 2^*exponent, a number near 1 or 0. */
static double norm_of(am_matrix a, int *exponent)
{
    const am_matrix here = am_matrix_local(a);
    double largest = 0, sum = 0;
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            largest = fmax(largest, fabs(here.at[i * here.step + j]));
        }
    }
    largest = a.grid == NULL ? largest : a.grid->ops->largest(a.grid, largest);
    *exponent = 0;
    if (largest == 0) {
        return 0;
    }
    (void)frexp(largest, exponent);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            const double x = ldexp(here.at[i * here.step + j], -*exponent);
            sum += x * x;
        }
    }
    return sqrt(am_matrix_total(a, sum));
}

double am_matrix_norm(am_matrix a)
{
    int exponent = 0;
    const double norm = norm_of(a, &exponent);
    return ldexp(norm, exponent);
}

bool am_matrix_normalise(am_matrix a, int *exponent)
{
    int more = 0;
    const double norm = norm_of(a, exponent);
    const am_matrix here = am_matrix_local(a);
    (void)frexp(norm, &more);
    *exponent += more;
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] = ldexp(here.at[i * here.step + j], -*exponent);
        }
    }
    return norm > 0;
}

double am_matrix_inner(am_matrix a, am_matrix b)
{
    AM_ASSERT(lies_alike(a, b));
    const am_matrix x = am_matrix_local(a), y = am_matrix_local(b);
    double sum = 0;
    for (int64_t i = 0; i < x.rows; i++) {
        for (int64_t j = 0; j < x.cols; j++) {
            sum += x.at[i * x.step + j] * y.at[i * y.step + j];
        }
    }
    return am_matrix_total(a, sum);
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
    AM_ASSERT(c.rows == rows && c.cols == cols && a.grid == c.grid && b.grid == c.grid);
    AM_ASSERT(inner == (turn_b == AM_AS_IS ? b.rows : b.cols));
    if (rows == 0 || cols == 0) {
        return;
    }
    if (beta == 0 && (inner == 0 || c.grid != NULL)) { /* what is not a number does not stay */
        am_matrix_fill(c, 0);
    }
    if (inner == 0) { /* steps of 0 are no leading dimensions */
        am_matrix_scale(c, beta);
        return;
    }
    if (c.grid != NULL) {
        c.grid->ops->multiply(alpha, a, turn_a, b, turn_b, beta, c);
        return;
    }
    am_blas_single_thread();
    am_alive("products of matrices");
    dgemm_(turn_b == AM_AS_IS ? "N" : "T", turn_a == AM_AS_IS ? "N" : "T", &m, &n, &k, &alpha, b.at,
           &ldb, a.at, &lda, &beta, c.at, &ldc, 1, 1);
}

double am_matrix_skewness(am_matrix a, am_matrix gram)
{
    const bool is_tall = a.rows > a.cols;
    double sum = 0;
    am_multiply(1, a, is_tall ? AM_TRANSPOSED : AM_AS_IS, a, is_tall ? AM_AS_IS : AM_TRANSPOSED, 0,
                gram);
    const am_matrix here = am_matrix_local(gram);
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(gram, i);
        for (int64_t j = 0; j < here.cols; j++) {
            const double off = here.at[i * here.step + j] - (am_matrix_col(gram, j) == row);
            sum += off * off;
        }
    }
    return sqrt(am_matrix_total(gram, sum));
}
