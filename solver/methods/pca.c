/* Task vectors projected on their leading principal components before they are added: what few of
 * them have stays out. All of it is arithmetic on the Gram matrix.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/angles.h"

enum { WEIGHT, LAMBDA, COMPONENTS, ENERGY, CENTER };

static const am_method_param params[] = {
    [WEIGHT] = AM_FACTOR_PARAM("weight", true, "factor of a task vector after the projection"),
    [LAMBDA] = AM_FACTOR_PARAM("lambda", false, "factor of the whole update"),
    [COMPONENTS] = {.key = "components",
                    .low = 0,
                    .high = 64,
                    .help = "principal components that stay, at most, and those whose eigenvalue "
                            "equals that of the last of them; 0: any number"},
    [ENERGY] = {.key = "energy",
                .fallback = 0.9,
                .low = 0,
                .high = 1,
                .help = "as few components as have this share of the squared lengths, one at "
                        "least, with equals as above; 1: all"},
    [CENTER] = {.key = "center",
                .is_bool = true,
                .help =
                    "components of the differences from the mean task vector, which stays whole"},
    {0}};

enum { MOST = 64 }; /* models: the matrices are on the stack */

static const double ROUNDING = 1e-12; /* a smaller share of the largest eigenvalue is none */
static const double EQUAL = 1e-9;     /* eigenvalues nearer than this stay together */

/* g [n,n]: inner products of the task vectors, or of their differences from the mean. */
static void fill_gram(const am_unit *unit, double *g)
{
    const int n = unit->models;
    double row[MOST], mean = 0;
    for (int i = 0; i < n; i++) {
        row[i] = 0;
        for (int j = 0; j < n; j++) {
            row[i] += am_gram_at(unit->sum, i, j) / n;
        }
        mean += row[i] / n;
    }
    for (int i = 0; i < n * n; i++) {
        const double centred = unit->param[CENTER] != 0 ? mean - row[i / n] - row[i % n] : 0;
        g[i] = am_gram_at(unit->sum, i / n, i % n) + centred;
    }
}

/* Columns of v by falling eigenvalue l[k,k]: order [n]; how many stay. Equal ones stay together,
 * or what stays would depend on the order of the models. */
static int choose(const am_unit *unit, const double *l, int *order)
{
    const int n = unit->models;
    const double most = floor(unit->param[COMPONENTS]);
    double total = 0, sum = 0;
    int kept = 0;
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; at > 0 && l[order[at - 1] * (n + 1)] < l[i * (n + 1)]; at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
        total += fmax(l[i * (n + 1)], 0);
    }
    const double largest = l[order[0] * (n + 1)];
    for (; kept < n; kept++) {
        const double value = l[order[kept] * (n + 1)];
        const bool is_enough = kept > 0 && ((most > 0 && kept >= most) ||
                                            sum >= unit->param[ENERGY] * total * (1 - ROUNDING));
        const bool is_equal = kept > 0 && value >= l[order[kept - 1] * (n + 1)] * (1 - EQUAL);
        if (!(value > ROUNDING * largest) || (is_enough && !is_equal)) {
            break;
        }
        sum += value;
    }
    return kept;
}

/* With G = V L V^T and w the weights: P tau_t = sum_s (V_k V_k^T)_st tau_s, so c = V_k V_k^T w;
 * with `center` it is the differences d_t = tau_t - mean, and c = mean(c) + c' - mean(c'), c'
 * theirs. */
static void project(const am_unit *unit, const double *v, const int *order, int kept)
{
    const int n = unit->models;
    double w[MOST], mean_w = 0, mean_c = 0, *c = unit->state;
    for (int t = 0; t < n; t++) {
        w[t] = unit->model_param[t][WEIGHT];
        mean_w += w[t] / n;
        c[t] = 0;
    }
    for (int k = 0; k < kept; k++) {
        double along = 0;
        for (int t = 0; t < n; t++) {
            along += v[t * n + order[k]] * w[t];
        }
        for (int t = 0; t < n; t++) {
            c[t] += v[t * n + order[k]] * along;
        }
    }
    for (int t = 0; t < n; t++) {
        mean_c += c[t] / n;
    }
    for (int t = 0; t < n; t++) {
        const double centred = unit->param[CENTER] != 0 ? mean_w - mean_c : 0;
        c[t] = unit->param[LAMBDA] * (c[t] + centred);
    }
}

static const char *solve(const am_unit *unit)
{
    double l[MOST * MOST], v[MOST * MOST];
    int order[MOST];
    fill_gram(unit, l);
    if (!am_eigen_symmetric(l, v, unit->models)) {
        return "the eigenvalues of the task vectors' Gram matrix did not converge";
    }
    project(unit, v, order, choose(unit, l, order));
    return NULL;
}

const am_method am_method_pca = {
    .name = "pca",
    .summary = "base plus task vectors projected on their leading principal components",
    .source = "principal components of the task vectors by their Gram matrix, as the PCA bases of "
              "Zeng et al. 2025 (arXiv:2502.01015): base + lambda sum_t w_t P tau_t, P the "
              "projection on the leading ones",
    .needs_base = true,
    .min_models = 1,
    .max_models = MOST,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .default_scope = AM_SCOPE_GLOBAL,
    AM_GRAM_METHOD(solve),
};
