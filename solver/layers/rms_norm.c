/* Root-mean-square normalisation over the last dimension: y = g x / sqrt(mean(x^2) + eps).
 * Source: Zhang & Sennrich (2019). SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "solver/training/real_lanes.h"
#include "solver/training/real_layer.h"

typedef struct am_rms_norm {
    double epsilon;
} am_rms_norm;

static const am_param attrs[] = {
    {"epsilon", AM_PARAM_REAL, offsetof(am_rms_norm, epsilon), "1e-6", 0, 1, NULL,
     "added to the mean square"},
    {0},
};

static int am_rms_norm_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    return 0;
}

static int am_rms_norm_params(const am_layer_site *s, am_layer_param *p)
{
    const int64_t F = am_shape_features(&s->in[0]);
    p[0] = (am_layer_param){.suffix = "weight", .n = 1, .d = {F}, .fill = 1};
    return 1;
}

static unsigned am_rms_norm_uses(const am_layer_site *s)
{
    (void)s;
    return AM_LAYER_READS_X;
}

/* 1 / root of every row */
static int64_t am_rms_norm_kept(const am_layer_site *s, int64_t B)
{
    return B * am_shape_rows(&s->in[0]) * (int64_t)sizeof(real);
}

/* f64 sums of the parameters' gradients */
static int64_t am_rms_norm_scratch(const am_layer_site *s, int64_t B)
{
    (void)B;
    return am_shape_features(&s->in[0]) * (int64_t)sizeof(double);
}

/* The same of their tangents, and h_dot of a row */
static int64_t am_rms_norm_curve_scratch(const am_layer_site *s, int64_t B)
{
    (void)B;
    return 2 * am_shape_features(&s->in[0]) * (int64_t)sizeof(double);
}

AM_CLONES static void am_rms_norm_forward(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const double epsilon = ((const am_rms_norm *)a->site->attrs)->epsilon;
    const real *restrict g = a->param[0];
    real *keep = a->keep;
    for (int64_t r = 0; r < R; r++) {
        const real *restrict x = a->x[0] + r * F;
        real *restrict y = a->y + r * F;
        const real inverse = (real)(1 / sqrt(am_lanes_dot(x, x, 0, F) / (double)F + epsilon));
        keep[r] = inverse;
        for (int64_t f = 0; f < F; f++) {
            y[f] = x[f] * inverse * g[f];
        }
    }
}

/* h = x r, dh = dy g:  dx = r (dh - h mean(dh h));  dg = sum dy h */
__attribute__((always_inline)) static inline void
am_rms_norm_row(int64_t F, const real *restrict x, const real *restrict dy, const real *restrict g,
                real inverse, bool add, real *restrict dx)
{
    double second[AM_LANES] = {0};
    for (int64_t f = 0; f < F; f += AM_LANES) {
        const int64_t n = F - f < AM_LANES ? F - f : AM_LANES;
        for (int64_t j = 0; j < n; j++) {
            second[j] += (double)dy[f + j] * (double)g[f + j] * (double)(x[f + j] * inverse);
        }
    }
    const real slope = (real)(am_lanes_total(second) / (double)F);
    for (int64_t f = 0; f < F; f++) {
        const real d = inverse * (dy[f] * g[f] - x[f] * inverse * slope);
        dx[f] = add ? dx[f] + d : d;
    }
}

AM_CLONES static void am_rms_norm_backward(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *keep = a->keep;
    double *restrict dg = a->scratch;
    memset(dg, 0, (size_t)F * sizeof(double));
    for (int64_t r = 0; r < R; r++) {
        const real *restrict x = a->x[0] + r * F, *restrict dy = a->dy + r * F;
        for (int64_t f = 0; f < F; f++) {
            dg[f] += (double)(dy[f] * (x[f] * keep[r]));
        }
        if (a->dx[0] != NULL) {
            am_rms_norm_row(F, x, dy, a->param[0], keep[r], a->add[0], a->dx[0] + r * F);
        }
    }
    for (int64_t f = 0; a->dparam[0] != NULL && f < F; f++) {
        a->dparam[0][f] = (real)dg[f];
    }
}

/* h_dot = r (x_dot - h mean(x_dot h));  y_dot = h_dot g + h g_dot */
static void am_rms_norm_tangent(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *keep = a->keep, *g = a->param[0], *g_dot = a->param_dot[0];
    for (int64_t r = 0; r < R; r++) {
        const real *x = a->x[0] + r * F, inverse = keep[r];
        const real *dot = a->x_dot[0] != NULL ? a->x_dot[0] + r * F : NULL;
        double slope = 0;
        for (int64_t f = 0; dot != NULL && f < F; f++) {
            slope += (double)dot[f] * (double)(x[f] * inverse) / (double)F;
        }
        for (int64_t f = 0; f < F; f++) {
            const real h = x[f] * inverse;
            const real h_dot = dot != NULL ? inverse * (dot[f] - h * (real)slope) : 0;
            a->y_dot[r * F + f] = h_dot * g[f] + h * g_dot[f];
        }
    }
}

/* With e = dy g and q = mean(x_dot h), where r_dot = - r^2 q:
 * h_dot = r (x_dot - h q);  e_dot = dy_dot g + dy g_dot;
 * dx_dot = r (e_dot - h mean(e_dot h + e h_dot) - h_dot mean(e h)) - r q dx;
 * dg_dot = sum (dy_dot h + dy h_dot) */
static void am_rms_norm_curve(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *keep = a->keep, *g = a->param[0], *g_dot = a->param_dot[0];
    double *dg_dot = a->scratch, *h_dot = dg_dot + F;
    const double n = (double)F;
    memset(dg_dot, 0, (size_t)F * sizeof(double));
    for (int64_t row = 0; row < R; row++) {
        const real *x = a->x[0] + row * F, *dy = a->dy + row * F, *dy_dot = a->dy_dot + row * F;
        const real *dot = a->x_dot[0] != NULL ? a->x_dot[0] + row * F : NULL;
        const double r = (double)keep[row];
        double q = 0, eh = 0, eh_dot = 0;
        for (int64_t f = 0; dot != NULL && f < F; f++) {
            q += (double)dot[f] * (double)x[f] * r / n;
        }
        for (int64_t f = 0; f < F; f++) {
            const double h = (double)x[f] * r, e = (double)dy[f] * (double)g[f];
            const double e_dot =
                (double)dy_dot[f] * (double)g[f] + (double)dy[f] * (double)g_dot[f];
            h_dot[f] = dot != NULL ? r * ((double)dot[f] - h * q) : 0;
            eh += e * h / n;
            eh_dot += (e_dot * h + e * h_dot[f]) / n;
            dg_dot[f] += (double)dy_dot[f] * h + (double)dy[f] * h_dot[f];
        }
        for (int64_t f = 0; a->dx_dot[0] != NULL && f < F; f++) {
            const double h = (double)x[f] * r, e = (double)dy[f] * (double)g[f];
            const double e_dot =
                (double)dy_dot[f] * (double)g[f] + (double)dy[f] * (double)g_dot[f];
            const double d = r * (e_dot - h * eh_dot - h_dot[f] * eh) - r * r * q * (e - h * eh);
            real *out = a->dx_dot[0] + row * F + f;
            *out = (real)(a->add[0] ? (double)*out + d : d);
        }
    }
    for (int64_t f = 0; a->dparam_dot[0] != NULL && f < F; f++) {
        a->dparam_dot[0][f] = (real)dg_dot[f];
    }
}

const am_layer AM_R(am_layer_rms_norm) = {
    .name = "rms_norm",
    .summary = "mean square 1 over the last dimension, then scale",
    .attrs = attrs,
    .inputs = 1,
    .adds_dx = true,
    .axes = {.rule = AM_AXES_SAME, .mixes = true, .param = {{AM_AXIS_OUT}}},
    .shape = am_rms_norm_shape,
    .params = am_rms_norm_params,
    .uses = am_rms_norm_uses,
    .kept = am_rms_norm_kept,
    .scratch = am_rms_norm_scratch,
    .curve_scratch = am_rms_norm_curve_scratch,
    .forward = am_rms_norm_forward,
    .backward = am_rms_norm_backward,
    .tangent = am_rms_norm_tangent,
    .curve = am_rms_norm_curve,
};
