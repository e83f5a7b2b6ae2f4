/* Fully connected layer over the last dimension, with bias and activation in one sweep:
 * y = act(x W^T + b). SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "solver/training/real_activation.h"
#include "solver/training/real_layer.h"

typedef struct am_linear {
    int64_t out;
    bool bias;
    int activation;
    double sigma;
} am_linear;

static const am_param attrs[] = {
    {"out", AM_PARAM_INT, offsetof(am_linear, out), NULL, 1, INT32_MAX, NULL, "outputs"},
    {"bias", AM_PARAM_BOOL, offsetof(am_linear, bias), "yes", 0, 0, NULL, "add a bias"},
    {"activation", AM_PARAM_CHOICE, offsetof(am_linear, activation), "none", 0, 0, AM_ACT_CHOICES,
     "function of the outputs"},
    {"sigma", AM_PARAM_REAL, offsetof(am_linear, sigma), "0", 0, 1e6, NULL,
     "deviation of the initial weights, 0: by the widths and the activation"},
    {0},
};

static int am_linear_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    out->d[out->n - 1] = ((const am_linear *)s->attrs)->out;
    return 0;
}

static int am_linear_params(const am_layer_site *s, am_layer_param *p)
{
    const am_linear *o = s->attrs;
    const int64_t C = am_shape_features(&s->in[0]);
    p[0] = (am_layer_param){.suffix = "weight", .n = 2, .d = {o->out, C}};
    p[0].sigma =
        o->sigma > 0 ? o->sigma : sqrt(AM_R(am_act_variance)((am_act)o->activation, C, o->out));
    p[1] = (am_layer_param){.suffix = "bias", .n = 1, .d = {o->out}};
    return o->bias ? 2 : 1;
}

static unsigned am_linear_uses(const am_layer_site *s)
{
    const am_act act = (am_act)((const am_linear *)s->attrs)->activation;
    const unsigned y = act == AM_ACT_NONE || AM_R(am_act_needs_z)(act) ? 0 : AM_LAYER_READS_Y;
    return AM_LAYER_READS_X | AM_LAYER_X_FOR_PARAMS | y |
           (act == AM_ACT_NONE ? 0 : AM_LAYER_SPOILS_DY);
}

/* act'(z) [B,R,K], where it is made of z */
static int64_t am_linear_kept(const am_layer_site *s, int64_t B)
{
    const am_act act = (am_act)((const am_linear *)s->attrs)->activation;
    return AM_R(am_act_needs_z)(act) ? B * am_shape_numel(&s->out) * (int64_t)sizeof(real) : 0;
}

/* dz [B,R,K], where it is not dy */
static int64_t am_linear_curve_scratch(const am_layer_site *s, int64_t B)
{
    const am_act act = (am_act)((const am_linear *)s->attrs)->activation;
    return act != AM_ACT_NONE ? B * am_shape_numel(&s->out) * (int64_t)sizeof(real) : 0;
}

/* z [R,K] = x [R,C] W^T, W [K,C];  y = act(z + b) */
static void am_linear_forward(const am_layer_args *a)
{
    const am_linear *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    real *z = AM_R(am_act_needs_z)(act) ? a->keep : a->y;
    AM_R(am_gemm)(false, true, R, o->out, C, a->x[0], a->param[0], z);
    AM_R(am_act_forward_both)(act, R, o->out, o->bias ? a->param[1] : NULL, z, a->y);
}

/* dz = dy act'(z), in place;  dW [K,C] = dz^T x;  db = sum over rows of dz;  dx [R,C] = dz W */
static void am_linear_backward(const am_layer_args *a)
{
    const am_linear *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const real *from = AM_R(am_act_needs_z)(act) ? a->keep : a->y;
    AM_R(am_act_backward_both)(act, R * o->out, from, a->dy, a->dy);
    if (o->bias) {
        AM_R(am_layer_column_sum)(R, o->out, a->dy, a->dparam[1]);
    }
    if (a->dparam[0] != NULL) {
        AM_R(am_gemm)(true, false, o->out, C, R, a->dy, a->x[0], a->dparam[0]);
    }
    if (a->dx[0] != NULL) {
        AM_R(am_gemm_to)(false, false, R, C, o->out, a->dy, a->param[0], a->add[0], a->dx[0]);
    }
}

/* z_dot = x_dot W^T + x W_dot^T + b_dot;  y_dot = z_dot act'(z);  kept: act''(z) z_dot, for which z
 * is made again */
static void am_linear_tangent(const am_layer_args *a)
{
    const am_linear *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    AM_R(am_gemm)(false, true, R, o->out, C, a->x[0], a->param_dot[0], a->y_dot);
    if (a->x_dot[0] != NULL) {
        AM_R(am_gemm_to)(false, true, R, o->out, C, a->x_dot[0], a->param[0], true, a->y_dot);
    }
    AM_R(am_act_forward)
    (AM_ACT_NONE, R, o->out, o->bias ? a->param_dot[1] : NULL, a->y_dot, a->y_dot);
    if (a->keep_dot != NULL) {
        AM_R(am_gemm)(false, true, R, o->out, C, a->x[0], a->param[0], a->keep_dot);
        AM_R(am_act_forward)
        (AM_ACT_NONE, R, o->out, o->bias ? a->param[1] : NULL, a->keep_dot, a->keep_dot);
        AM_R(am_act_bend)(act, R * o->out, a->keep_dot, a->y_dot);
    }
    const real *from = AM_R(am_act_needs_z)(act) ? a->keep : a->y;
    AM_R(am_act_backward_both)(act, R * o->out, from, a->y_dot, a->y_dot);
}

/* dz_dot = dy_dot act'(z) + dy act''(z) z_dot, in place;  dW_dot = dz_dot^T x + dz^T x_dot;
 * db_dot = sum over rows of dz_dot;  dx_dot = dz_dot W + dz W_dot */
static void am_linear_curve(const am_layer_args *a)
{
    const am_linear *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const int64_t C = am_shape_features(&a->site->in[0]), R = a->B * am_shape_rows(&a->site->in[0]);
    const bool needs_z = AM_R(am_act_needs_z)(act);
    const real *from = needs_z ? a->keep : a->y, *dz = a->dy;
    if (act != AM_ACT_NONE) {
        AM_R(am_act_curve_both)
        (act, R * o->out, from, needs_z ? a->keep_dot : a->y_dot, a->dy, a->dy_dot, a->dy_dot);
        AM_R(am_act_backward_both)(act, R * o->out, from, a->dy, a->scratch);
        dz = a->scratch;
    }
    if (o->bias) {
        AM_R(am_layer_column_sum)(R, o->out, a->dy_dot, a->dparam_dot[1]);
    }
    if (a->dparam_dot[0] != NULL) {
        AM_R(am_gemm)(true, false, o->out, C, R, a->dy_dot, a->x[0], a->dparam_dot[0]);
        if (a->x_dot[0] != NULL) {
            AM_R(am_gemm_to)(true, false, o->out, C, R, dz, a->x_dot[0], true, a->dparam_dot[0]);
        }
    }
    if (a->dx_dot[0] != NULL) {
        AM_R(am_gemm_to)
        (false, false, R, C, o->out, a->dy_dot, a->param[0], a->add[0], a->dx_dot[0]);
        AM_R(am_gemm_to)(false, false, R, C, o->out, dz, a->param_dot[0], true, a->dx_dot[0]);
    }
}

static int64_t am_linear_product_terms(const am_layer_site *s)
{
    return am_shape_features(&s->in[0]);
}

static int64_t am_linear_product_rows(const am_layer_site *s)
{
    return am_shape_rows(&s->in[0]);
}

static void am_linear_product_inputs(const am_layer_args *a, int64_t lo, int64_t hi, double *to)
{
    const int64_t C = am_shape_features(&a->site->in[0]);
    for (int64_t i = lo * C; i < hi * C; i++) {
        *to++ = (double)a->x[0][i];
    }
}

const am_layer AM_R(am_layer_linear) = {
    .name = "linear",
    .summary = "fully connected over the last dimension: act(x W^T + b)",
    .attrs = attrs,
    .inputs = 1,
    .adds_dx = true,
    .axes = {.rule = AM_AXES_NEW, .param = {{AM_AXIS_OUT, AM_AXIS_IN}, {AM_AXIS_OUT}}},
    .shape = am_linear_shape,
    .params = am_linear_params,
    .uses = am_linear_uses,
    .kept = am_linear_kept,
    .kept_dot = am_linear_kept,
    .curve_scratch = am_linear_curve_scratch,
    .product_terms = am_linear_product_terms,
    .product_rows = am_linear_product_rows,
    .product_inputs = am_linear_product_inputs,
    .forward = am_linear_forward,
    .backward = am_linear_backward,
    .tangent = am_linear_tangent,
    .curve = am_linear_curve,
};
