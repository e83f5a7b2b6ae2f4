/* Low-rank adaptation of a product: y = act(x0 + scale x1 B^T), where x0 = W x is the product with
 * frozen weights and x1 = A x has few features. A is a layer of its own, linear or conv2d; see
 * training/lora.h. Source: Hu et al., LoRA (2021). SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_activation.h"
#include "solver/training/real_layer.h"

typedef struct am_lora {
    double scale;
    int activation;
} am_lora;

static const am_param attrs[] = {
    {"scale", AM_PARAM_REAL, offsetof(am_lora, scale), "1", 0, 0, NULL,
     "factor of the second input's part"},
    {"activation", AM_PARAM_CHOICE, offsetof(am_lora, activation), "none", 0, 0, AM_ACT_CHOICES,
     "function of the outputs"},
    {0},
};

static int am_lora_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    return s->in[0].n > 0 && am_shape_rows(&s->in[0]) == am_shape_rows(&s->in[1])
               ? 0
               : am_layer_fail(s, "%s and %s do not have the same rows", am_shape_text(&s->in[0]),
                               am_shape_text(&s->in[1]));
}

/* B [K,r]; zero, so that training begins at x0 */
static int am_lora_params(const am_layer_site *s, am_layer_param *p)
{
    p[0] = (am_layer_param){.suffix = "weight",
                            .n = 2,
                            .d = {am_shape_features(&s->in[0]), am_shape_features(&s->in[1])}};
    return 1;
}

static unsigned am_lora_uses(const am_layer_site *s)
{
    const am_act act = (am_act)((const am_lora *)s->attrs)->activation;
    const unsigned y = act == AM_ACT_NONE || AM_R(am_act_needs_z)(act) ? 0 : AM_LAYER_READS_Y;
    return AM_LAYER_READS_X | AM_LAYER_X_FOR_PARAMS | y |
           (act == AM_ACT_NONE ? 0 : AM_LAYER_SPOILS_DY);
}

/* z [B,R,K], where the derivative needs it */
static int64_t am_lora_kept(const am_layer_site *s, int64_t B)
{
    const am_act act = (am_act)((const am_lora *)s->attrs)->activation;
    return AM_R(am_act_needs_z)(act) ? B * am_shape_numel(&s->out) * (int64_t)sizeof(real) : 0;
}

/* dz [B,R,K], where it is not dy */
static int64_t am_lora_curve_scratch(const am_layer_site *s, int64_t B)
{
    const am_act act = (am_act)((const am_lora *)s->attrs)->activation;
    return act != AM_ACT_NONE ? B * am_shape_numel(&s->out) * (int64_t)sizeof(real) : 0;
}

typedef struct am_lora_size {
    int64_t R, K, r;
    real scale;
    am_act act;
} am_lora_size;

static am_lora_size am_lora_size_of(const am_layer_args *a)
{
    const am_lora *o = a->site->attrs;
    return (am_lora_size){.R = a->B * am_shape_rows(&a->site->in[0]),
                          .K = am_shape_features(&a->site->in[0]),
                          .r = am_shape_features(&a->site->in[1]),
                          .scale = (real)o->scale,
                          .act = (am_act)o->activation};
}

/* z [R,K] += scale x1 [R,r] B^T */
static void am_lora_product(const am_lora_size *z, const real *x1, const real *weight, real *out)
{
    const am_operand left = {.at = x1, .ld = z->r};
    const am_operand right = {.at = weight, .ld = z->r, .transpose = true};
    AM_R(am_gemm_in)(z->R, z->K, z->r, z->scale, left, right, true, out, z->K);
}

static void am_lora_forward(const am_layer_args *a)
{
    const am_lora_size z = am_lora_size_of(a);
    real *out = AM_R(am_act_needs_z)(z.act) ? a->keep : a->y;
    memcpy(out, a->x[0], (size_t)(z.R * z.K) * sizeof(real));
    am_lora_product(&z, a->x[1], a->param[0], out);
    AM_R(am_act_forward)(z.act, z.R, z.K, NULL, out, a->y);
}

/* dz = dy act'(z), in place;  dB = scale dz^T x1;  dx1 = scale dz B;  dx0 = dz */
static void am_lora_backward(const am_layer_args *a)
{
    const am_lora_size z = am_lora_size_of(a);
    const real *from = AM_R(am_act_needs_z)(z.act) ? a->keep : a->y;
    const am_operand dz = {.at = a->dy, .ld = z.K},
                     dz_t = {.at = a->dy, .ld = z.K, .transpose = true};
    AM_R(am_act_backward)(z.act, z.R * z.K, from, a->dy, a->dy);
    if (a->dparam[0] != NULL) {
        const am_operand x1 = {.at = a->x[1], .ld = z.r};
        AM_R(am_gemm_in)(z.K, z.r, z.R, z.scale, dz_t, x1, false, a->dparam[0], z.r);
    }
    if (a->dx[1] != NULL) {
        const am_operand weight = {.at = a->param[0], .ld = z.r};
        AM_R(am_gemm_in)(z.R, z.r, z.K, z.scale, dz, weight, a->add[1], a->dx[1], z.r);
    }
    if (a->dx[0] != NULL && a->add[0]) {
        AM_R(am_layer_sum)(z.R * z.K, a->dy, a->dx[0]);
    } else if (a->dx[0] != NULL) {
        memcpy(a->dx[0], a->dy, (size_t)(z.R * z.K) * sizeof(real));
    }
}

/* z_dot = x0_dot + scale (x1_dot B^T + x1 B_dot^T);  y_dot = z_dot act'(z);  kept: z_dot, where the
 * derivative needs z */
static void am_lora_tangent(const am_layer_args *a)
{
    const am_lora_size z = am_lora_size_of(a);
    const real *from = AM_R(am_act_needs_z)(z.act) ? a->keep : a->y;
    if (a->x_dot[0] != NULL) {
        memcpy(a->y_dot, a->x_dot[0], (size_t)(z.R * z.K) * sizeof(real));
    } else {
        memset(a->y_dot, 0, (size_t)(z.R * z.K) * sizeof(real));
    }
    am_lora_product(&z, a->x[1], a->param_dot[0], a->y_dot);
    if (a->x_dot[1] != NULL) {
        am_lora_product(&z, a->x_dot[1], a->param[0], a->y_dot);
    }
    if (a->keep_dot != NULL) {
        memcpy(a->keep_dot, a->y_dot, (size_t)(z.R * z.K) * sizeof(real));
    }
    AM_R(am_act_backward)(z.act, z.R * z.K, from, a->y_dot, a->y_dot);
}

/* dz_dot = dy_dot act'(z) + dy act''(z) z_dot, in place;  dB_dot = scale (dz_dot^T x1 + dz^T
 * x1_dot); dx1_dot = scale (dz_dot B + dz B_dot);  dx0_dot = dz_dot */
static void am_lora_curve(const am_layer_args *a)
{
    const am_lora_size z = am_lora_size_of(a);
    const bool needs_z = AM_R(am_act_needs_z)(z.act);
    const real *from = needs_z ? a->keep : a->y, *d = a->dy;
    if (z.act != AM_ACT_NONE) {
        AM_R(am_act_backward)(z.act, z.R * z.K, from, a->dy, a->scratch);
        AM_R(am_act_curve)
        (z.act, z.R * z.K, from, needs_z ? a->keep_dot : a->y_dot, a->dy, a->dy_dot, a->dy_dot);
        d = a->scratch;
    }
    const am_operand dz = {.at = d, .ld = z.K}, dz_dot = {.at = a->dy_dot, .ld = z.K};
    const am_operand dz_t = {.at = d, .ld = z.K, .transpose = true};
    const am_operand dz_dot_t = {.at = a->dy_dot, .ld = z.K, .transpose = true};
    if (a->dparam_dot[0] != NULL) {
        const am_operand x1 = {.at = a->x[1], .ld = z.r}, x1_dot = {.at = a->x_dot[1], .ld = z.r};
        AM_R(am_gemm_in)(z.K, z.r, z.R, z.scale, dz_dot_t, x1, false, a->dparam_dot[0], z.r);
        if (x1_dot.at != NULL) {
            AM_R(am_gemm_in)(z.K, z.r, z.R, z.scale, dz_t, x1_dot, true, a->dparam_dot[0], z.r);
        }
    }
    if (a->dx_dot[1] != NULL) {
        const am_operand weight = {.at = a->param[0], .ld = z.r};
        const am_operand weight_dot = {.at = a->param_dot[0], .ld = z.r};
        AM_R(am_gemm_in)(z.R, z.r, z.K, z.scale, dz_dot, weight, a->add[1], a->dx_dot[1], z.r);
        AM_R(am_gemm_in)(z.R, z.r, z.K, z.scale, dz, weight_dot, true, a->dx_dot[1], z.r);
    }
    if (a->dx_dot[0] != NULL && a->add[0]) {
        AM_R(am_layer_sum)(z.R * z.K, a->dy_dot, a->dx_dot[0]);
    } else if (a->dx_dot[0] != NULL) {
        memcpy(a->dx_dot[0], a->dy_dot, (size_t)(z.R * z.K) * sizeof(real));
    }
}

const am_layer AM_R(am_layer_lora) = {
    .name = "lora",
    .summary = "low-rank adaptation of a product: act(x0 + scale x1 B^T)",
    .attrs = attrs,
    .inputs = 2,
    .adds_dx = true,
    .shape = am_lora_shape,
    .params = am_lora_params,
    .uses = am_lora_uses,
    .kept = am_lora_kept,
    .kept_dot = am_lora_kept,
    .curve_scratch = am_lora_curve_scratch,
    .forward = am_lora_forward,
    .backward = am_lora_backward,
    .tangent = am_lora_tangent,
    .curve = am_lora_curve,
};
