/* Mean of directions along the sphere. Every iterate is a combination of the models, so after the
 * Gram matrix the iterations need no further look at the data.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/angles.h"

enum { MAX_ITER, TOL };

static const am_method_param params[] = {
    [MAX_ITER] = {.key = "max_iter",
                  .fallback = 10,
                  .low = 0,
                  .high = 1e6,
                  .help = "most steps along the sphere"},
    [TOL] = {.key = "tol",
             .fallback = 1e-5,
             .low = 0,
             .high = 1,
             .help = "a shorter step, angle or vector is zero"},
    {0}};

/* Vectors that have a direction; u = sum_t c_t x_t is the iterate, of length 1. */
typedef struct sphere {
    const double *gram;
    int n, n_valid;
    double tol;
    double length[AM_MAX_MODELS];
    bool is_valid[AM_MAX_MODELS];
} sphere;

static void measure(const am_unit *unit, sphere *s)
{
    *s = (sphere){.gram = unit->sum, .n = unit->models, .tol = unit->param[TOL]};
    for (int t = 0; t < s->n; t++) {
        s->length[t] = sqrt(am_gram_at(s->gram, t, t));
        s->is_valid[t] = s->length[t] > s->tol;
        s->n_valid += s->is_valid[t];
    }
}

static void scale(double *c, int n, double factor)
{
    for (int t = 0; t < n; t++) {
        c[t] *= factor;
    }
}

/* The mean of the directions, or the first one when they cancel. */
static void start(const sphere *s, double *c)
{
    int first = 0;
    for (int t = 0; t < s->n; t++) {
        c[t] = s->is_valid[t] ? 1 / (s->n_valid * s->length[t]) : 0;
    }
    const double norm = am_gram_norm(s->gram, s->n, c);
    if (norm >= s->tol && norm > 0) {
        scale(c, s->n, 1 / norm);
        return;
    }
    while (!s->is_valid[first]) {
        first++;
    }
    for (int t = 0; t < s->n; t++) {
        c[t] = t == first ? 1 / s->length[t] : 0;
    }
}

/* g = mean over t of theta_t / sin(theta_t) (u_t - cos(theta_t) u). A direction that is u itself
 * adds nothing; its antipode has no way to it. */
static void find_tangent(const sphere *s, const double *c, double *g)
{
    double along = 0;
    for (int t = 0; t < s->n; t++) {
        g[t] = 0;
        if (!s->is_valid[t]) {
            continue;
        }
        const double dot = am_gram_dot(s->gram, s->n, t, c) / s->length[t];
        const double cosine = fmax(-1, fmin(1, dot)), theta = acos(cosine), sine = sin(theta);
        if (theta >= s->tol && sine > 1e-7) {
            const double factor = theta / sine / s->n_valid;
            g[t] = factor / s->length[t];
            along += factor * cosine;
        }
    }
    for (int t = 0; t < s->n; t++) {
        g[t] -= along * c[t];
    }
}

/* u := cos(|g|) u + sin(|g|) g / |g|, of length 1 again. False when g is short enough. */
static bool step(const sphere *s, double *c)
{
    double g[AM_MAX_MODELS];
    find_tangent(s, c, g);
    const double size = am_gram_norm(s->gram, s->n, g);
    if (size < s->tol || size == 0) {
        return false;
    }
    for (int t = 0; t < s->n; t++) {
        c[t] = cos(size) * c[t] + sin(size) / size * g[t];
    }
    const double norm = am_gram_norm(s->gram, s->n, c);
    if (norm > s->tol) {
        scale(c, s->n, 1 / norm);
    }
    return true;
}

static const char *solve(const am_unit *unit)
{
    sphere s;
    double *c = unit->state, mean_length = 0;
    measure(unit, &s);
    if (s.n == 1) {
        c[0] = 1;
        return NULL;
    }
    if (s.n_valid == 0) {
        for (int t = 0; t < s.n; t++) {
            c[t] = 0;
        }
        return NULL;
    }
    start(&s, c);
    for (int i = 0; i < (int)unit->param[MAX_ITER] && step(&s, c); i++) {
    }
    for (int t = 0; t < s.n; t++) {
        mean_length += s.length[t] / s.n;
    }
    scale(c, s.n, mean_length);
    return NULL;
}

const am_method am_method_karcher = {
    .name = "karcher",
    .summary = "mean of the models' directions along the sphere, at their mean length",
    .source = "Karcher 1977, Riemannian center of mass, as in mergekit: "
              "u <- exp_u(mean_t log_u(x_t / |x_t|))",
    .base_is_model = true,
    .min_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT | AM_PROP_EQUAL_IDENTITY,
    .params = params,
    AM_GRAM_METHOD(solve),
};
