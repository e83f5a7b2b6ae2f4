/* Model Stock: between the base and the mean of the models, at a place that follows from the angles
 * between task vectors; a tensor, or each row, has one place. SPDX-License-Identifier: BSD-3-Clause
 */
#include <math.h>
#include <stddef.h>
#include "solver/merge/angles.h"

enum { FILTER_WISE };

static const am_method_param params[] = {
    [FILTER_WISE] = {.key = "filter_wise",
                     .is_bool = true,
                     .help = "one place for each row of the last dimension"},
    {0}};

static bool by_rows(const am_unit *unit)
{
    return unit->param[FILTER_WISE] != 0 && unit->rows > 1;
}

/* What is wrong with the parameters of a unit. */
static const char *complaint(const am_unit *unit)
{
    return unit->param[FILTER_WISE] != 0 && unit->scope == AM_SCOPE_GLOBAL
               ? "filter_wise needs scope: tensor"
               : NULL;
}

static const char *check(const am_tile *tile)
{
    return complaint(tile->unit);
}

static int count(const am_unit *unit)
{
    return by_rows(unit) ? 0 : am_gram_count(unit);
}

static const double SMALLEST = 1e-6; /* product of lengths in mergekit */

/* Mean cosine of the pairs of task vectors; the paper takes the cosine of their mean angle. */
static double mean_cosine(const double *gram, int n, am_semantics semantics)
{
    const bool is_paper = semantics == AM_SEMANTICS_PAPER;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++) {
            const double product = sqrt(am_gram_at(gram, i, i)) * sqrt(am_gram_at(gram, j, j));
            const double least = is_paper ? (product > 0 ? product : 1) : fmax(product, SMALLEST);
            const double cosine = fmax(-1, fmin(1, am_gram_at(gram, i, j) / least));
            sum += is_paper ? acos(cosine) : cosine;
        }
    }
    const double mean = sum / (0.5 * n * (n - 1));
    return is_paper ? cos(mean) : mean;
}

/* t / n for every model, t = n c / (1 + (n - 1) c). At the pole the base is kept. */
static void find_coefficients(const double *gram, int n, am_semantics semantics, double *c)
{
    const double cosine = n > 1 ? mean_cosine(gram, n, semantics) : 0;
    const double below = 1 + (n - 1) * cosine;
    for (int t = 0; t < n; t++) {
        c[t] = fabs(below) < 1e-6 ? 0 : cosine / below;
    }
}

static const char *solve(const am_unit *unit)
{
    find_coefficients(unit->sum, unit->models, unit->semantics, unit->state);
    return complaint(unit);
}

static void combine_row(const am_tile *row)
{
    double gram[AM_MAX_MODELS * (AM_MAX_MODELS + 1) / 2], c[AM_MAX_MODELS];
    for (int i = 0; i < am_gram_count(row->unit); i++) {
        gram[i] = 0;
    }
    am_tile_gram(row, gram);
    find_coefficients(gram, row->models, row->unit->semantics, c);
    am_tile_combine(row, c);
}

static void combine(const am_tile *tile)
{
    const double *x[AM_MAX_MODELS];
    if (!by_rows(tile->unit)) {
        am_coefficient_combine(tile);
        return;
    }
    for (int64_t row = 0; row < tile->rows; row++) {
        const am_tile view = am_tile_row(tile, row, x);
        combine_row(&view);
    }
}

const am_method am_method_model_stock = {
    .name = "model_stock",
    .summary = "from the base towards the mean of the models, as far as their task vectors agree",
    .source = "Jang et al. 2024 (arXiv:2403.19522): t mean(theta) + (1 - t) theta_0, "
              "t = n c / (1 + (n - 1) c); c: mean cosine (mergekit) or cosine of the mean angle "
              "(paper)",
    .needs_base = true,
    .min_models = 2,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .semantics = AM_SEMANTICS_MERGEKIT | AM_SEMANTICS_PAPER,
    .by_rows = by_rows,
    .states = am_coefficient_states,
    .n_passes = 1,
    .pass = {{.count = count, .sums = am_tile_gram, .solve = solve}},
    .check = check,
    .combine = combine,
};
