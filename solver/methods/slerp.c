/* Spherical interpolation between the base and one model. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/merge/angles.h"

enum { T };

static const am_method_param params[] = {
    [T] = {.key = "t",
           .required = true,
           .low = -100,
           .high = 100,
           .help = "place on the arc: 0 is the base, 1 the model"},
    {0}};

static const double SMALLEST = 1e-8;   /* a shorter vector counts as one of length 1 */
static const double STRAIGHT = 0.9995; /* |cosine| above which the arc is a line */

static int count(const am_unit *unit)
{
    return unit->models > 0 ? 3 : 0;
}

static int states(const am_unit *unit)
{
    (void)unit;
    return 1;
}

/* Inner products of the two ends as they are, not as task vectors. */
static void sums(const am_tile *tile, double *sum)
{
    const double *ends[] = {tile->base, tile->x[0]};
    am_tile both = *tile;
    both.base = NULL;
    both.models = 2;
    both.x = ends;
    am_tile_gram(&both, sum);
}

static double length(double square)
{
    const double norm = sqrt(square);
    return norm > SMALLEST ? norm : 1;
}

/* state: the cosine. */
static const char *solve(const am_unit *unit)
{
    const double *g = unit->sum;
    const double cosine = g[1] / (length(g[0]) * length(g[2]));
    unit->state[0] = fmax(-1, fmin(1, cosine));
    return NULL;
}

static void combine(const am_tile *tile)
{
    const double t = tile->param[T];
    double c[2] = {1 - t, t};
    if (tile->models == 0) {
        am_tile_combine(tile, c); /* the base */
        return;
    }
    if (fabs(tile->unit->state[0]) <= STRAIGHT) {
        am_arc(t, tile->unit->state[0], c);
    }
    for (int64_t i = 0; i < tile->n; i++) {
        tile->out[i] = c[0] * tile->base[i] + c[1] * tile->x[0][i];
    }
}

const am_method am_method_slerp = {
    .name = "slerp",
    .summary = "a point on the great arc from the base to one model",
    .source = "Shoemake 1985, Animating rotation with quaternion curves, as in mergekit: "
              "(sin((1 - t) a) theta_0 + sin(t a) theta_1) / sin(a), a their angle; a line when "
              "|cos(a)| > 0.9995",
    .needs_base = true,
    .min_models = 1,
    .max_models = 1,
    .properties = AM_PROP_ORDER_INVARIANT,
    .params = params,
    .scopes = AM_SCOPE_TENSOR | AM_SCOPE_GLOBAL,
    .states = states,
    .n_passes = 1,
    .pass = {{.count = count, .sums = sums, .solve = solve}},
    .combine = combine,
};
