/* Task vectors made orthogonal to each other before they are added, so that what several of them
 * share counts once. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/angles.h"

enum { WEIGHT, LAMBDA, SYMMETRIC };

static const am_method_param params[] = {
    [WEIGHT] =
        AM_FACTOR_PARAM("weight", true, "factor of a task vector after it was made orthogonal"),
    [LAMBDA] = AM_FACTOR_PARAM("lambda", false, "factor of the whole update"),
    [SYMMETRIC] = {.key = "symmetric",
                   .is_bool = true,
                   .help = "Loewdin, all models alike; else Gram-Schmidt, in the recipe's order"},
    {0}};

enum { MOST = 64 }; /* models: the matrices are on the stack */

static const double DEPENDENT = 1e-12; /* a smaller share of a squared length is rounding */

/* Row i of a: coefficients of tau_i less its projections on the rows before it.
 * Returns |row i|^2, 0 when nothing is left. */
static double project(const double *gram, int n, int i, double (*a)[MOST], const double *square)
{
    for (int k = 0; k < n; k++) {
        a[i][k] = k == i;
    }
    for (int j = 0; j < i; j++) {
        double dot = 0;
        for (int k = 0; k < n && square[j] > 0; k++) {
            dot += a[j][k] * am_gram_dot(gram, n, k, a[i]);
        }
        for (int k = 0; k < n && square[j] > 0; k++) {
            a[i][k] -= dot / square[j] * a[j][k];
        }
    }
    const double norm = am_gram_norm(gram, n, a[i]);
    return norm * norm > DEPENDENT * am_gram_at(gram, i, i) ? norm * norm : 0;
}

static void gram_schmidt(const am_unit *unit, double *c)
{
    const int n = unit->models;
    double a[MOST][MOST], square[MOST];
    for (int i = 0; i < n; i++) {
        square[i] = project(unit->sum, n, i, a, square);
        for (int k = 0; k < n && square[i] > 0; k++) {
            c[k] += unit->model_param[i][WEIGHT] * a[i][k];
        }
    }
}

/* Entry (i, j) of V f(L) V^T, f = x^power; eigenvalues that are rounding have no direction. */
static double root(const double *l, const double *v, int n, int i, int j, double power)
{
    double sum = 0, largest = 0;
    for (int k = 0; k < n; k++) {
        largest = fmax(largest, l[k * n + k]);
    }
    for (int k = 0; k < n; k++) {
        const double value = l[k * n + k];
        sum += value > DEPENDENT * largest ? v[i * n + k] * pow(value, power) * v[j * n + k] : 0;
    }
    return sum;
}

/* C: cosines. Q = U C^-1/2 is the orthonormal basis nearest to the unit vectors U = T D^-1; tau_i
 * becomes its projection <q_i, tau_i> q_i, and <q_i, tau_i> = d_i (C^1/2)_ii. */
static const char *loewdin(const am_unit *unit, double *c)
{
    const int n = unit->models;
    double cosine[MOST * MOST], v[MOST * MOST], length[MOST];
    for (int i = 0; i < n; i++) {
        const double norm = sqrt(am_gram_at(unit->sum, i, i));
        length[i] = norm > 0 ? norm : 1;
    }
    for (int i = 0; i < n * n; i++) {
        cosine[i] = am_gram_at(unit->sum, i / n, i % n) / (length[i / n] * length[i % n]);
    }
    if (!am_eigen_symmetric(cosine, v, n)) {
        return "the eigenvalues of the task vectors' cosines did not converge";
    }
    for (int i = 0; i < n; i++) {
        const double along = length[i] * root(cosine, v, n, i, i, 0.5);
        for (int k = 0; k < n; k++) {
            c[k] +=
                unit->model_param[i][WEIGHT] * along * root(cosine, v, n, i, k, -0.5) / length[k];
        }
    }
    return NULL;
}

static const char *solve(const am_unit *unit)
{
    const char *wrong = NULL;
    for (int t = 0; t < unit->models; t++) {
        unit->state[t] = 0;
    }
    if (unit->param[SYMMETRIC] != 0) {
        wrong = loewdin(unit, unit->state);
    } else {
        gram_schmidt(unit, unit->state);
    }
    for (int t = 0; t < unit->models; t++) {
        unit->state[t] *= unit->param[LAMBDA];
    }
    return wrong;
}

const am_method am_method_orthogonalise = {
    .name = "orthogonalise",
    .summary = "base plus task vectors made orthogonal, by Gram-Schmidt or by Loewdin",
    .source = "Gram-Schmidt: tau_i less its projections on those before it. Loewdin 1950: Q = U "
              "(U^T U)^-1/2, U the unit vectors; tau_i becomes <q_i, tau_i> q_i",
    .needs_base = true,
    .min_models = 1,
    .max_models = MOST,
    .params = params,
    .default_scope = AM_SCOPE_GLOBAL,
    AM_GRAM_METHOD(solve),
};
