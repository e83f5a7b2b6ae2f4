/* Regression mean: the weights whose products come closest to what every model's weights make of
 * its own inputs. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/method.h"
#include "solver/merge/regression.h"
#include "solver/merge/weights.h"

enum { WEIGHT = AM_WEIGHT, ALPHA };

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

static bool is_dense(const am_unit *unit)
{
    return unit->has_gram && unit->dims >= 2;
}

static int64_t dense_bytes(const am_unit *unit)
{
    const int64_t rows = unit->outer, cols = unit->n / rows;
    return am_regression_bytes_on(unit->on, rows, cols) +
           am_regression_solve_bytes_on(unit->on, rows, cols, unit->param[ALPHA]);
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

/* Around the mean of the models: regression.h. */
static int merge_dense(const am_dense *matrix)
{
    const am_unit *unit = matrix->unit;
    am_regression r;
    am_regression_begin(matrix->work, matrix->out, unit->param[ALPHA], &r);
    mean(matrix, r.start);
    for (int t = 0; t < unit->models; t++) {
        am_regression_add(&r, unit->model_param[t][WEIGHT], matrix->delta[t], matrix->gram[t]);
    }
    return am_regression_solve(matrix->work, &r, matrix->out);
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
    .check = am_weights_check,
    .combine = combine,
    .is_dense = is_dense,
    .dense_bytes = dense_bytes,
    .largest = largest,
    .merge_dense = merge_dense,
};
