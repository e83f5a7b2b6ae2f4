/* Gradient surgery on task vectors: each loses what points against another one. All of it is
 * arithmetic on the Gram matrix. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/merge/angles.h"

enum { WEIGHT, LAMBDA, SHUFFLE };

static const am_method_param params[] = {
    [WEIGHT] = AM_FACTOR_PARAM("weight", true, "factor of a task vector after the projections"),
    [LAMBDA] = AM_FACTOR_PARAM("lambda", false, "factor of the whole update"),
    [SHUFFLE] = {.key = "shuffle",
                 .is_bool = true,
                 .fallback = 1,
                 .help = "project on the others in an order drawn from the seed; else in order"},
    {0}};

/* The order in which vector i meets the others (and itself, which changes nothing). */
static void draw_order(const am_unit *unit, int i, int *order)
{
    for (int j = 0; j < unit->models; j++) {
        order[j] = j;
    }
    for (int left = unit->models; unit->param[SHUFFLE] != 0 && left > 1; left--) {
        const int at = (int)(am_rng_uniform(&unit->rng[i], left) * left);
        const int last = order[left - 1];
        order[left - 1] = order[at];
        order[at] = last;
    }
}

/* Coefficients a of vector i on the original vectors, after: for j in order,
 * if <g_i, tau_j> < 0: g_i -= <g_i, tau_j> / |tau_j|^2 tau_j. */
static void project(const am_unit *unit, int i, double *a)
{
    int order[AM_MAX_MODELS];
    draw_order(unit, i, order);
    for (int j = 0; j < unit->models; j++) {
        a[j] = j == i;
    }
    for (int k = 0; k < unit->models; k++) {
        const int j = order[k];
        const double dot = j == i ? 0 : am_gram_dot(unit->sum, unit->models, j, a);
        if (dot < 0) {
            a[j] -= dot / am_gram_at(unit->sum, j, j);
        }
    }
}

static const char *solve(const am_unit *unit)
{
    double a[AM_MAX_MODELS];
    for (int j = 0; j < unit->models; j++) {
        unit->state[j] = 0;
    }
    for (int i = 0; i < unit->models; i++) {
        const double weight = unit->param[LAMBDA] * unit->model_param[i][WEIGHT];
        project(unit, i, a);
        for (int j = 0; j < unit->models; j++) {
            unit->state[j] += weight * a[j];
        }
    }
    return NULL;
}

const am_method am_method_pcgrad = {
    .name = "pcgrad",
    .summary = "base plus task vectors, each without its part against another one",
    .source = "Yu et al. 2020 (arXiv:2001.06782), algorithm 1, on task vectors: "
              "g_i -= <g_i, tau_j> / |tau_j|^2 tau_j where negative; theta_0 + sum_i g_i",
    .needs_base = true,
    .min_models = 1,
    .params = params,
    .default_scope = AM_SCOPE_GLOBAL,
    AM_GRAM_METHOD(solve),
};
