/* Regression mean: see regression.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/regression.h"

#include <float.h>
#include <stdbool.h>
#include "solver/linalg/cholesky.h"
#include "solver/linalg/least_squares.h"

/* Shrunk Gram matrices have full rank, but for inputs that are always 0. */
static bool is_shrunk(double alpha)
{
    return alpha < 1;
}

int64_t am_regression_bytes_on(const am_layout *on, int64_t rows, int64_t cols)
{
    return 2 * am_matrix_bytes_on(on, rows, cols) + am_matrix_bytes_on(on, cols, cols);
}

int64_t am_regression_solve_bytes_on(const am_layout *on, int64_t rows, int64_t cols, double alpha)
{
    return is_shrunk(alpha) ? 0 : am_least_squares_bytes_on(on, cols, cols, rows);
}

void am_regression_begin(am_arena *work, am_matrix like, double alpha, am_regression *out)
{
    *out = (am_regression){.alpha = alpha,
                           .start = am_matrix_take_like(work, like, like.rows, like.cols),
                           .right = am_matrix_take_like(work, like, like.rows, like.cols),
                           .gram = am_matrix_take_like(work, like, like.cols, like.cols)};
    am_matrix_fill(out->right, 0);
    am_matrix_fill(out->gram, 0);
}

/* Elements beside the diagonal times alpha, all times w. */
static void shrink(double alpha, double w, am_matrix gram)
{
    const am_matrix here = am_matrix_local(gram);
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(gram, i);
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] *= am_matrix_col(gram, j) == row ? w : alpha * w;
        }
    }
}

/* An input that is always 0 has an empty row: the start stays. */
static void close_gaps(am_matrix gram)
{
    const am_matrix here = am_matrix_local(gram);
    for (int64_t i = 0; i < here.rows; i++) {
        const int64_t row = am_matrix_row(gram, i);
        for (int64_t j = 0; j < here.cols; j++) {
            double *x = &here.at[i * here.step + j];
            *x = am_matrix_col(gram, j) == row && *x == 0 ? 1 : *x;
        }
    }
}

void am_regression_add(am_regression *r, double weight, am_matrix model, am_matrix gram)
{
    shrink(r->alpha, weight, gram);
    am_matrix_add(-1, r->start, model);
    am_multiply(1, model, AM_AS_IS, gram, AM_AS_IS, 1, r->right);
    am_matrix_add(1, gram, r->gram);
}

int am_regression_solve(am_arena *work, am_regression *r, am_matrix out)
{
    int64_t rank = 0;
    int rc;
    if (is_shrunk(r->alpha)) {
        close_gaps(r->gram);
        rc = am_cholesky(r->gram);
        rc = rc != 0 ? rc : am_cholesky_solve(r->gram, r->right);
    } else {
        rc = am_least_squares(work, r->gram, r->right, (double)r->start.cols * DBL_EPSILON, &rank);
    }
    if (rc == 0) {
        am_matrix_copy(r->start, out);
        am_matrix_add(1, r->right, out);
    }
    return rc;
}
