/* Regression mean: the weights whose products come closest to what every model's weights make of
 * its own inputs. SPDX-License-Identifier: BSD-3-Clause */
#include <float.h>
#include <stddef.h>
#include "solver/linalg/cholesky.h"
#include "solver/linalg/least_squares.h"
#include "solver/merge/method.h"

enum { WEIGHT, ALPHA };

static const am_method_param params[] = {
    [WEIGHT] = {.key = "weight",
                .per_model = true,
                .fallback = 1,
                .low = 0,
                .high = 1e9,
                .help = "factor of a model's Gram matrices, and of the model in means"},
    [ALPHA] = {.key = "alpha",
               .fallback = 0.95,
               .low = 0,
               .high = 1,
               .help = "what elements of a Gram matrix beside the diagonal are multiplied with"},
    {0}};

static const char *check(const am_tile *tile)
{
    double total = 0;
    for (int t = 0; t < tile->models; t++) {
        total += tile->model_param[t][WEIGHT];
    }
    return total == 0 ? "the weights sum to zero" : NULL;
}

static bool is_dense(const am_unit *unit)
{
    return unit->has_gram && unit->dims >= 2;
}

static bool is_shrunk(const am_unit *unit)
{
    return unit->param[ALPHA] < 1;
}

static int64_t dense_bytes(const am_unit *unit)
{
    const int64_t rows = unit->outer, cols = unit->n / rows;
    return 2 * am_matrix_bytes_on(unit->on, rows, cols) + am_matrix_bytes_on(unit->on, cols, cols) +
           (is_shrunk(unit) ? 0 : am_least_squares_bytes_on(unit->on, cols, cols, rows));
}

/* The Gram matrix, where layers have more inputs than outputs. */
static void largest(const am_unit *unit, int64_t *rows, int64_t *cols)
{
    *cols = unit->n / unit->outer;
    *rows = unit->outer > *cols ? unit->outer : *cols;
}

/* out = sum_t w_t x_t / sum_t w_t, from the first model on, so that equal models stay as they are
 */
static void mean(const am_dense *matrix, am_matrix out)
{
    const am_matrix here = am_matrix_local(out); /* all of these lie alike, without gaps */
    double total = 0;
    am_matrix_fill(out, 0);
    for (int t = 0; t < matrix->unit->models; t++) {
        const double w = matrix->unit->model_param[t][WEIGHT];
        const double *x = am_matrix_local(matrix->delta[t]).at;
        total += w;
        for (int64_t i = 0; total > 0 && i < here.rows * here.cols; i++) {
            here.at[i] += w / total * (x[i] - here.at[i]);
        }
    }
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

/* An input that is always 0 has an empty row: the mean stays. */
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

/* With M the mean of the models and G_t shrunk and weighted: W = M + E, E sum_t G_t =
 * sum_t (W_t - M) G_t. Where sum_t G_t is singular E is the shortest solution, so that the weights
 * of directions that no model has seen are those of the mean. */
static int merge_dense(const am_dense *matrix)
{
    const am_unit *unit = matrix->unit;
    const am_matrix like = matrix->out;
    const am_matrix m = am_matrix_take_like(matrix->work, like, like.rows, like.cols);
    const am_matrix b = am_matrix_take_like(matrix->work, like, m.rows, m.cols);
    const am_matrix gram = am_matrix_take_like(matrix->work, like, m.cols, m.cols);
    int64_t rank = 0;
    int rc;
    mean(matrix, m);
    am_matrix_fill(b, 0);
    am_matrix_fill(gram, 0);
    for (int t = 0; t < unit->models; t++) {
        shrink(unit->param[ALPHA], unit->model_param[t][WEIGHT], matrix->gram[t]);
        am_matrix_add(-1, m, matrix->delta[t]);
        am_multiply(1, matrix->delta[t], AM_AS_IS, matrix->gram[t], AM_AS_IS, 1, b);
        am_matrix_add(1, matrix->gram[t], gram);
    }
    if (is_shrunk(unit)) {
        close_gaps(gram);
        rc = am_cholesky(gram);
        rc = rc != 0 ? rc : am_cholesky_solve(gram, b);
    } else {
        rc = am_least_squares(matrix->work, gram, b, (double)m.cols * DBL_EPSILON, &rank);
    }
    if (rc == 0) {
        am_matrix_copy(m, matrix->out);
        am_matrix_add(1, b, matrix->out);
    }
    return rc;
}

/* All other tensors: their mean, written as above. */
static void combine(const am_tile *tile)
{
    double total = 0;
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = 0;
    }
    for (int t = 0; t < tile->models; t++) {
        const double w = tile->model_param[t][WEIGHT];
        total += w;
        for (int64_t i = 0; total > 0 && i < tile->n; i++) {
            tile->out[i] += w / total * (tile->x[t][i] - tile->out[i]);
        }
    }
}

const am_method am_method_regmean = {
    .name = "regmean",
    .summary = "least squares over the inputs that the layers of each model get (RegMean)",
    .source = "Jin et al. 2023 (arXiv:2212.09849), equation 2: W = (sum_t G_t)^-1 sum_t G_t W_t, "
              "G_t = X_t^T X_t with elements beside the diagonal times alpha; means elsewhere",
    .needs_gram = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY | AM_PROP_ZERO_REMOVES,
    .params = params,
    .on_grid = true,
    .check = check,
    .combine = combine,
    .is_dense = is_dense,
    .dense_bytes = dense_bytes,
    .largest = largest,
    .merge_dense = merge_dense,
};
