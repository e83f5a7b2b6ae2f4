/* Layer normalisation over the last dimension: y = g (x - mean) / sqrt(var + eps) + b.
 * Source: Ba, Kiros & Hinton (2016). SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "solver/training/real_lanes.h"
#include "solver/training/real_layer.h"

typedef struct am_layer_norm {
    double epsilon;
} am_layer_norm;

static const am_param attrs[] = {
    {"epsilon", AM_PARAM_REAL, offsetof(am_layer_norm, epsilon), "1e-5", 0, 1, NULL,
     "added to the variance"},
    {0},
};

static int am_layer_norm_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    return 0;
}

static int am_layer_norm_params(const am_layer_site *s, am_layer_param *p)
{
    const int64_t F = am_shape_features(&s->in[0]);
    p[0] = (am_layer_param){.suffix = "weight", .n = 1, .d = {F}, .fill = 1};
    p[1] = (am_layer_param){.suffix = "bias", .n = 1, .d = {F}};
    return 2;
}

static unsigned am_layer_norm_uses(const am_layer_site *s)
{
    (void)s;
    return AM_LAYER_READS_X;
}

/* mean and 1 / deviation of every row */
static int64_t am_layer_norm_kept(const am_layer_site *s, int64_t B)
{
    return 2 * B * am_shape_rows(&s->in[0]) * (int64_t)sizeof(real);
}

/* f64 sums of the parameters' gradients */
static int64_t am_layer_norm_scratch(const am_layer_site *s, int64_t B)
{
    (void)B;
    return 2 * am_shape_features(&s->in[0]) * (int64_t)sizeof(double);
}

/* The same of their tangents, and h_dot of a row */
static int64_t am_layer_norm_curve_scratch(const am_layer_site *s, int64_t B)
{
    (void)B;
    return 3 * am_shape_features(&s->in[0]) * (int64_t)sizeof(double);
}

AM_CLONES static void am_layer_norm_forward(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const double epsilon = ((const am_layer_norm *)a->site->attrs)->epsilon;
    const real *restrict g = a->param[0], *restrict bias = a->param[1];
    real *keep = a->keep;
    for (int64_t r = 0; r < R; r++) {
        const real *restrict x = a->x[0] + r * F;
        real *restrict y = a->y + r * F;
        const double mean = am_lanes_sum(x, 0, F) / (double)F;
        const double variance = am_lanes_dot(x, x, mean, F) / (double)F;
        const real m = (real)mean, inverse = (real)(1 / sqrt(variance + epsilon));
        keep[2 * r] = m;
        keep[2 * r + 1] = inverse;
        for (int64_t f = 0; f < F; f++) {
            y[f] = (x[f] - m) * inverse * g[f] + bias[f];
        }
    }
}

/* h = (x - m) r, dh = dy g:  dx = r (dh - mean(dh) - h mean(dh h));  dg = sum dy h;  db = sum dy.
 * One row; *restrict makes the loops over f vector loops. */
__attribute__((always_inline)) static inline void
am_layer_norm_row(int64_t F, const real *restrict x, const real *restrict dy,
                  const real *restrict g, real m, real inverse, bool add, real *restrict dx)
{
    double first[AM_LANES] = {0}, second[AM_LANES] = {0};
    for (int64_t f = 0; f < F; f += AM_LANES) {
        const int64_t n = F - f < AM_LANES ? F - f : AM_LANES;
        for (int64_t j = 0; j < n; j++) {
            const double dh = (double)dy[f + j] * (double)g[f + j];
            first[j] += dh;
            second[j] += dh * (double)((x[f + j] - m) * inverse);
        }
    }
    const real mean = (real)(am_lanes_total(first) / (double)F);
    const real slope = (real)(am_lanes_total(second) / (double)F);
    for (int64_t f = 0; f < F; f++) {
        const real h = (x[f] - m) * inverse;
        const real d = inverse * (dy[f] * g[f] - mean - h * slope);
        dx[f] = add ? dx[f] + d : d;
    }
}

AM_CLONES static void am_layer_norm_backward(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *keep = a->keep;
    double *restrict dg = a->scratch, *restrict db = dg + F;
    memset(dg, 0, 2 * (size_t)F * sizeof(double));
    for (int64_t r = 0; r < R; r++) {
        const real *restrict x = a->x[0] + r * F, *restrict dy = a->dy + r * F;
        const real m = keep[2 * r], inverse = keep[2 * r + 1];
        for (int64_t f = 0; f < F; f++) {
            dg[f] += (double)(dy[f] * ((x[f] - m) * inverse));
            db[f] += (double)dy[f];
        }
        if (a->dx[0] != NULL) {
            am_layer_norm_row(F, x, dy, a->param[0], m, inverse, a->add[0], a->dx[0] + r * F);
        }
    }
    for (int64_t f = 0; f < F; f++) {
        if (a->dparam[0] != NULL) {
            a->dparam[0][f] = (real)dg[f];
        }
        if (a->dparam[1] != NULL) {
            a->dparam[1][f] = (real)db[f];
        }
    }
}

/* h_dot = r (x_dot - mean(x_dot) - h mean(x_dot h));  y_dot = h_dot g + h g_dot + b_dot */
static void am_layer_norm_tangent(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *keep = a->keep, *g = a->param[0], *g_dot = a->param_dot[0];
    for (int64_t r = 0; r < R; r++) {
        const real *x = a->x[0] + r * F, m = keep[2 * r], inverse = keep[2 * r + 1];
        const real *dot = a->x_dot[0] != NULL ? a->x_dot[0] + r * F : NULL;
        double mean = 0, slope = 0;
        for (int64_t f = 0; dot != NULL && f < F; f++) {
            mean += (double)dot[f] / (double)F;
            slope += (double)dot[f] * (double)((x[f] - m) * inverse) / (double)F;
        }
        for (int64_t f = 0; f < F; f++) {
            const real h = (x[f] - m) * inverse;
            const real h_dot = dot != NULL ? inverse * (dot[f] - (real)mean - h * (real)slope) : 0;
            a->y_dot[r * F + f] = h_dot * g[f] + h * g_dot[f] + a->param_dot[1][f];
        }
    }
}

/* With e = dy g and q = mean(x_dot h), where r_dot = - r^2 q:
 * h_dot = r (x_dot - mean(x_dot) - h q);  e_dot = dy_dot g + dy g_dot;
 * dx_dot = r (e_dot - mean(e_dot) - h mean(e_dot h + e h_dot) - h_dot mean(e h)) - r q dx;
 * dg_dot = sum (dy_dot h + dy h_dot);  db_dot = sum dy_dot */
static void am_layer_norm_curve(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *keep = a->keep, *g = a->param[0], *g_dot = a->param_dot[0];
    double *dg_dot = a->scratch, *db_dot = dg_dot + F, *h_dot = db_dot + F;
    const double n = (double)F;
    memset(dg_dot, 0, 2 * (size_t)F * sizeof(double));
    for (int64_t row = 0; row < R; row++) {
        const real *x = a->x[0] + row * F, *dy = a->dy + row * F, *dy_dot = a->dy_dot + row * F;
        const real *dot = a->x_dot[0] != NULL ? a->x_dot[0] + row * F : NULL;
        const double m = (double)keep[2 * row], r = (double)keep[2 * row + 1];
        double mean = 0, q = 0, e1 = 0, eh = 0, e1_dot = 0, eh_dot = 0;
        for (int64_t f = 0; dot != NULL && f < F; f++) {
            mean += (double)dot[f] / n;
            q += (double)dot[f] * ((double)x[f] - m) * r / n;
        }
        for (int64_t f = 0; f < F; f++) {
            const double h = ((double)x[f] - m) * r, e = (double)dy[f] * (double)g[f];
            const double e_dot =
                (double)dy_dot[f] * (double)g[f] + (double)dy[f] * (double)g_dot[f];
            h_dot[f] = dot != NULL ? r * ((double)dot[f] - mean - h * q) : 0;
            e1 += e / n;
            eh += e * h / n;
            e1_dot += e_dot / n;
            eh_dot += (e_dot * h + e * h_dot[f]) / n;
            dg_dot[f] += (double)dy_dot[f] * h + (double)dy[f] * h_dot[f];
            db_dot[f] += (double)dy_dot[f];
        }
        for (int64_t f = 0; a->dx_dot[0] != NULL && f < F; f++) {
            const double h = ((double)x[f] - m) * r, e = (double)dy[f] * (double)g[f];
            const double e_dot =
                (double)dy_dot[f] * (double)g[f] + (double)dy[f] * (double)g_dot[f];
            const double d =
                r * (e_dot - e1_dot - h * eh_dot - h_dot[f] * eh) - r * r * q * (e - e1 - h * eh);
            real *out = a->dx_dot[0] + row * F + f;
            *out = (real)(a->add[0] ? (double)*out + d : d);
        }
    }
    for (int64_t f = 0; f < F; f++) {
        if (a->dparam_dot[0] != NULL) {
            a->dparam_dot[0][f] = (real)dg_dot[f];
        }
        if (a->dparam_dot[1] != NULL) {
            a->dparam_dot[1][f] = (real)db_dot[f];
        }
    }
}

const am_layer AM_R(am_layer_layer_norm) = {
    .name = "layer_norm",
    .summary = "mean 0 and variance 1 over the last dimension, then scale and shift",
    .attrs = attrs,
    .inputs = 1,
    .adds_dx = true,
    .axes = {.rule = AM_AXES_SAME, .mixes = true, .param = {{AM_AXIS_OUT}, {AM_AXIS_OUT}}},
    .shape = am_layer_norm_shape,
    .params = am_layer_norm_params,
    .uses = am_layer_norm_uses,
    .kept = am_layer_norm_kept,
    .scratch = am_layer_norm_scratch,
    .curve_scratch = am_layer_norm_curve_scratch,
    .forward = am_layer_norm_forward,
    .backward = am_layer_norm_backward,
    .tangent = am_layer_norm_tangent,
    .curve = am_layer_norm_curve,
};
