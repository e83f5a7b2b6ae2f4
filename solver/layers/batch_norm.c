/* Batch normalisation of every channel over samples and positions. In training, statistics of the
 * micro-batch: a leaf is fixed by the recipe, so they do not depend on ranks; backward hands them
 * to the step, which moves the running ones (solver/README.md). Else the running statistics.
 * Source: Ioffe & Szegedy (2015). SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

typedef struct am_batch_norm {
    double epsilon, momentum;
} am_batch_norm;

static const am_param attrs[] = {
    {"epsilon", AM_PARAM_REAL, offsetof(am_batch_norm, epsilon), "1e-5", 0, 1, NULL,
     "added to the variance"},
    {"momentum", AM_PARAM_REAL, offsetof(am_batch_norm, momentum), "0.1", 1e-6, 1, NULL,
     "share of a step in the running statistics"},
    {0},
};

enum { AM_WEIGHT, AM_BIAS, AM_MEAN, AM_VARIANCE };
enum { AM_CURVE_SUMS = 7 };

static int am_batch_norm_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    return 0;
}

static int am_batch_norm_params(const am_layer_site *s, am_layer_param *p)
{
    const am_batch_norm *o = s->attrs;
    const int64_t C = am_shape_features(&s->in[0]);
    p[AM_WEIGHT] = (am_layer_param){.suffix = "weight", .n = 1, .d = {C}, .fill = 1};
    p[AM_BIAS] = (am_layer_param){.suffix = "bias", .n = 1, .d = {C}};
    p[AM_MEAN] = (am_layer_param){.suffix = "running_mean", .n = 1, .d = {C}, .rate = o->momentum};
    p[AM_VARIANCE] =
        (am_layer_param){.suffix = "running_var", .n = 1, .d = {C}, .fill = 1, .rate = o->momentum};
    return 4;
}

static unsigned am_batch_norm_uses(const am_layer_site *s)
{
    (void)s;
    return AM_LAYER_READS_X;
}

/* Mean, 1 / deviation and variance of every channel. */
static int64_t am_batch_norm_kept(const am_layer_site *s, int64_t B)
{
    (void)B;
    return 3 * am_shape_features(&s->in[0]) * (int64_t)sizeof(real);
}

static int64_t am_batch_norm_scratch(const am_layer_site *s, int64_t B)
{
    (void)B;
    return 2 * am_shape_features(&s->in[0]) * (int64_t)sizeof(double);
}

/* Sums of a channel, f64: AM_CURVE_SUMS of them. */
static int64_t am_batch_norm_curve_scratch(const am_layer_site *s, int64_t B)
{
    (void)B;
    return AM_CURVE_SUMS * am_shape_features(&s->in[0]) * (int64_t)sizeof(double);
}

/* sum[c] += a[r,c] - m[c] (m NULL: 0), square[c] += its square */
AM_CLONES static void am_batch_norm_sums(int64_t R, int64_t C, const real *x,
                                         const real *restrict m, double *restrict sum,
                                         double *restrict square)
{
    for (int64_t r = 0; r < R; r++) {
        const real *restrict row = x + r * C;
        for (int64_t c = 0; c < C; c++) {
            const double d = (double)row[c] - (double)m[c];
            sum[c] += d;
            square[c] += d * d;
        }
    }
}

/* Statistics of the batch: squares about the first row, so that little cancels. */
static void am_batch_norm_measure(const am_layer_args *a, int64_t R, int64_t C)
{
    real *mean = a->keep, *inverse = mean + C, *variance = inverse + C;
    const double epsilon = ((const am_batch_norm *)a->site->attrs)->epsilon;
    double *sum = a->scratch, *square = sum + C;
    memset(sum, 0, 2 * (size_t)C * sizeof(double));
    am_batch_norm_sums(R, C, a->x[0], a->x[0], sum, square);
    for (int64_t c = 0; c < C; c++) {
        const double d = sum[c] / (double)R, v = square[c] / (double)R - d * d;
        variance[c] = (real)(v < 0 ? 0 : v);
        mean[c] = (real)((double)a->x[0][c] + d);
        inverse[c] = (real)(1 / sqrt((double)variance[c] + epsilon));
    }
}

static void am_batch_norm_recall(const am_layer_args *a, int64_t C)
{
    real *mean = a->keep, *inverse = mean + C;
    const double epsilon = ((const am_batch_norm *)a->site->attrs)->epsilon;
    for (int64_t c = 0; c < C; c++) {
        mean[c] = a->param[AM_MEAN][c];
        inverse[c] = (real)(1 / sqrt((double)a->param[AM_VARIANCE][c] + epsilon));
    }
}

AM_CLONES static void am_batch_norm_forward(const am_layer_args *a)
{
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *restrict mean = a->keep, *restrict inverse = mean + C;
    const real *restrict g = a->param[AM_WEIGHT], *restrict bias = a->param[AM_BIAS];
    if (a->is_training) {
        am_batch_norm_measure(a, R, C);
    } else {
        am_batch_norm_recall(a, C);
    }
    for (int64_t r = 0; r < R; r++) {
        const real *restrict x = a->x[0] + r * C;
        real *restrict y = a->y + r * C;
        for (int64_t c = 0; c < C; c++) {
            y[c] = (x[c] - mean[c]) * inverse[c] * g[c] + bias[c];
        }
    }
}

/* Means over the batch, weighted with the leaf's share; the variance without bias. */
static void am_batch_norm_hand_over(const am_layer_args *a, int64_t R, int64_t C)
{
    const real *mean = a->keep, *variance = mean + 2 * C;
    const double share = (double)a->B * a->scale, unbias = R > 1 ? (double)R / (double)(R - 1) : 1;
    for (int64_t c = 0; c < C; c++) {
        if (a->dparam[AM_MEAN] != NULL) {
            a->dparam[AM_MEAN][c] = a->is_training ? (real)(share * (double)mean[c]) : 0;
        }
        if (a->dparam[AM_VARIANCE] != NULL) {
            a->dparam[AM_VARIANCE][c] =
                a->is_training ? (real)(share * unbias * (double)variance[c]) : 0;
        }
    }
}

/* h = (x - m) r.  first[c] = sum over rows of d, second[c] = sum over rows of d h */
AM_CLONES static void am_batch_norm_moments(const am_layer_args *a, const real *from,
                                            double *restrict first, double *restrict second)
{
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *restrict mean = a->keep, *restrict inverse = mean + C;
    memset(first, 0, (size_t)C * sizeof(double));
    memset(second, 0, (size_t)C * sizeof(double));
    for (int64_t r = 0; r < R; r++) {
        const real *restrict x = a->x[0] + r * C, *restrict d = from + r * C;
        for (int64_t c = 0; c < C; c++) {
            first[c] += (double)d[c];
            second[c] += (double)(d[c] * ((x[c] - mean[c]) * inverse[c]));
        }
    }
}

/* In training  dx = r g (dy - mean(dy) - h mean(dy h)), else r g dy;  dg = sum dy h;  db = sum dy
 */
AM_CLONES static void am_batch_norm_backward(const am_layer_args *a)
{
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *restrict mean = a->keep, *restrict inverse = mean + C, *restrict g = a->param[0];
    double *restrict first = a->scratch, *restrict second = first + C;
    am_batch_norm_moments(a, a->dy, first, second);
    am_batch_norm_hand_over(a, R, C);
    for (int64_t c = 0; c < C; c++) {
        if (a->dparam[AM_WEIGHT] != NULL) {
            a->dparam[AM_WEIGHT][c] = (real)second[c];
        }
        if (a->dparam[AM_BIAS] != NULL) {
            a->dparam[AM_BIAS][c] = (real)first[c];
        }
        first[c] = a->is_training ? first[c] / (double)R : 0;
        second[c] = a->is_training ? second[c] / (double)R : 0;
    }
    for (int64_t r = 0; a->dx[0] != NULL && r < R; r++) {
        const real *restrict x = a->x[0] + r * C, *restrict dy = a->dy + r * C;
        real *restrict dx = a->dx[0] + r * C;
        for (int64_t c = 0; c < C; c++) {
            const real h = (x[c] - mean[c]) * inverse[c];
            dx[c] = inverse[c] * g[c] * (dy[c] - (real)first[c] - h * (real)second[c]);
        }
    }
}

/* h_dot as dx above from x_dot, without g;  y_dot = h_dot g + h g_dot + b_dot */
static void am_batch_norm_tangent(const am_layer_args *a)
{
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *mean = a->keep, *inverse = mean + C, *g = a->param[0];
    double *first = a->scratch, *second = first + C;
    if (a->x_dot[0] != NULL) {
        am_batch_norm_moments(a, a->x_dot[0], first, second);
    }
    for (int64_t i = 0; i < R * C; i++) {
        const int64_t c = i % C;
        const double n = (double)R, h = (double)((a->x[0][i] - mean[c]) * inverse[c]);
        double h_dot = a->x_dot[0] != NULL ? (double)a->x_dot[0][i] : 0;
        if (a->x_dot[0] != NULL && a->is_training) {
            h_dot -= first[c] / n + h * second[c] / n;
        }
        a->y_dot[i] =
            (real)((double)inverse[c] * h_dot * (double)g[c] +
                   h * (double)a->param_dot[AM_WEIGHT][c] + (double)a->param_dot[AM_BIAS][c]);
    }
}

/* Sums over the rows of a channel: of x_dot and x_dot h, dy and dy h, dy_dot and dy_dot h, and of
 * dy h_dot. In training h_dot = r (x_dot - mean(x_dot) - h q), q = mean(x_dot h), so that
 * the sum of dy h_dot follows from the others and that of dy x_dot. */
typedef struct am_batch_norm_sum {
    double *x, *xh, *y, *yh, *y_dot, *y_dot_h, *yx; /* [C] each */
} am_batch_norm_sum;

static am_batch_norm_sum am_batch_norm_curve_sums(const am_layer_args *a, int64_t R, int64_t C)
{
    double *at = a->scratch;
    const am_batch_norm_sum s = {at,         at + C,     at + 2 * C, at + 3 * C,
                                 at + 4 * C, at + 5 * C, at + 6 * C};
    memset(at, 0, AM_CURVE_SUMS * (size_t)C * sizeof(double));
    am_batch_norm_moments(a, a->dy, s.y, s.yh);
    am_batch_norm_moments(a, a->dy_dot, s.y_dot, s.y_dot_h);
    if (a->x_dot[0] != NULL) {
        am_batch_norm_moments(a, a->x_dot[0], s.x, s.xh);
    }
    for (int64_t i = 0; a->x_dot[0] != NULL && i < R * C; i++) {
        s.yx[i % C] += (double)a->dy[i] * (double)a->x_dot[0][i];
    }
    return s;
}

/* One row of dx_dot; the sums are means of their channel now: s.y of e, s.yh of e h, s.y_dot of
 * e_dot, s.y_dot_h of e_dot h + e h_dot. */
static void am_batch_norm_curve_row(const am_layer_args *a, const am_batch_norm_sum *s, int64_t C,
                                    int64_t row)
{
    const real *mean = a->keep, *inverse = mean + C;
    const real *x = a->x[0] + row * C, *dy = a->dy + row * C, *dy_dot = a->dy_dot + row * C;
    const real *dot = a->x_dot[0] != NULL ? a->x_dot[0] + row * C : NULL;
    for (int64_t c = 0; c < C; c++) {
        const double g = (double)a->param[AM_WEIGHT][c], r = (double)inverse[c];
        const double e = g * (double)dy[c];
        const double e_dot =
            g * (double)dy_dot[c] + (double)a->param_dot[AM_WEIGHT][c] * (double)dy[c];
        const double h = (double)((x[c] - mean[c]) * inverse[c]);
        const double h_dot = r * ((dot != NULL ? (double)dot[c] : 0) - s->x[c] - h * s->xh[c]);
        const double d = e_dot - s->y_dot[c] - h * s->y_dot_h[c] - h_dot * s->yh[c];
        a->dx_dot[0][row * C + c] = (real)(r * d - r * r * s->xh[c] * (e - s->y[c] - h * s->yh[c]));
    }
}

/* With e = dy g, e_dot = dy_dot g + dy g_dot; in training q = mean(x_dot h), r_dot = - r^2 q,
 * h_dot = r (x_dot - mean(x_dot) - h q) and
 * dx_dot = r (e_dot - mean(e_dot) - h mean(e_dot h + e h_dot) - h_dot mean(e h)) - r q dx;
 * else h_dot = r x_dot and dx_dot = r e_dot;  dg_dot = sum (dy_dot h + dy h_dot);
 * db_dot = sum dy_dot */
static void am_batch_norm_curve(const am_layer_args *a)
{
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *inverse = (const real *)a->keep + C;
    const am_batch_norm_sum s = am_batch_norm_curve_sums(a, R, C);
    const double share = a->is_training ? 1 / (double)R : 0;
    for (int64_t c = 0; c < C; c++) {
        const double g = (double)a->param[AM_WEIGHT][c];
        const double g_dot = (double)a->param_dot[AM_WEIGHT][c];
        s.x[c] *= share;
        s.xh[c] *= share;
        const double yh_dot = (double)inverse[c] * (s.yx[c] - s.x[c] * s.y[c] - s.xh[c] * s.yh[c]);
        if (a->dparam_dot[AM_WEIGHT] != NULL) {
            a->dparam_dot[AM_WEIGHT][c] = (real)(s.y_dot_h[c] + yh_dot);
        }
        if (a->dparam_dot[AM_BIAS] != NULL) {
            a->dparam_dot[AM_BIAS][c] = (real)s.y_dot[c];
        }
        for (int k = AM_MEAN; k <= AM_VARIANCE; k++) { /* statistics are no part of the loss */
            if (a->dparam_dot[k] != NULL) {
                a->dparam_dot[k][c] = 0;
            }
        }
        s.y_dot[c] = share * (g * s.y_dot[c] + g_dot * s.y[c]);
        s.y_dot_h[c] = share * (g * s.y_dot_h[c] + g_dot * s.yh[c] + g * yh_dot);
        s.y[c] *= share * g;
        s.yh[c] *= share * g;
    }
    for (int64_t row = 0; a->dx_dot[0] != NULL && row < R; row++) {
        am_batch_norm_curve_row(a, &s, C, row);
    }
}

const am_layer AM_R(am_layer_batch_norm) = {
    .name = "batch_norm",
    .summary = "mean 0 and variance 1 of every channel over the micro-batch, then scale and shift",
    .attrs = attrs,
    .inputs = 1,
    .axes = {.rule = AM_AXES_SAME,
             .param = {{AM_AXIS_OUT}, {AM_AXIS_OUT}, {AM_AXIS_OUT}, {AM_AXIS_OUT}}},
    .shape = am_batch_norm_shape,
    .params = am_batch_norm_params,
    .uses = am_batch_norm_uses,
    .kept = am_batch_norm_kept,
    .scratch = am_batch_norm_scratch,
    .curve_scratch = am_batch_norm_curve_scratch,
    .forward = am_batch_norm_forward,
    .backward = am_batch_norm_backward,
    .tangent = am_batch_norm_tangent,
    .curve = am_batch_norm_curve,
};
