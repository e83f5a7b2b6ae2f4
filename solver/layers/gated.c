/* Gated unit (SwiGLU with silu): the input is two halves, y = act(x[:F]) * x[F:].
 * Source: Shazeer, GLU variants improve transformer (2020). SPDX-License-Identifier: BSD-3-Clause
 */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_activation.h"
#include "solver/training/real_layer.h"

typedef struct am_gated {
    int activation;
} am_gated;

static const am_param attrs[] = {
    {"activation", AM_PARAM_CHOICE, offsetof(am_gated, activation), "silu", 0, 0,
     "silu|gelu|gelu_tanh", "function of the gate"},
    {0},
};

static am_act am_gated_act(const am_layer_site *s)
{
    static const am_act acts[] = {AM_ACT_SILU, AM_ACT_GELU, AM_ACT_GELU_TANH};
    return acts[((const am_gated *)s->attrs)->activation];
}

static int am_gated_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    if (am_shape_features(out) % 2 != 0) {
        return am_layer_fail(s, "takes two halves, not %s", am_shape_text(&s->in[0]));
    }
    out->d[out->n - 1] /= 2;
    return 0;
}

static unsigned am_gated_uses(const am_layer_site *s)
{
    (void)s;
    return AM_LAYER_READS_X;
}

AM_CLONES static void am_gated_times(int64_t n, const real *a, const real *b, real *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = a[i] * b[i];
    }
}

static void am_gated_forward(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->out), R = a->B * am_shape_rows(&a->site->out);
    for (int64_t r = 0; r < R; r++) {
        const real *x = a->x[0] + 2 * r * F;
        real *y = a->y + r * F;
        /* Without a bias the gate is only read. */
        AM_R(am_act_forward)(am_gated_act(a->site), 1, F, NULL, (real *)x, y);
        am_gated_times(F, y, x + F, y);
    }
}

/* d gate = dy up act'(gate);  d up = dy act(gate) */
static void am_gated_backward(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->out), R = a->B * am_shape_rows(&a->site->out);
    const am_act act = am_gated_act(a->site);
    for (int64_t r = 0; r < R; r++) {
        const real *x = a->x[0] + 2 * r * F, *dy = a->dy + r * F;
        real *dx = a->dx[0] + 2 * r * F;
        am_gated_times(F, dy, x + F, dx);
        AM_R(am_act_backward)(act, F, x, dx, dx);
        AM_R(am_act_forward)(act, 1, F, NULL, (real *)x, dx + F);
        am_gated_times(F, dx + F, dy, dx + F);
    }
}

/* y_dot = gate_dot act'(gate) up + act(gate) up_dot */
static void am_gated_tangent(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->out), R = a->B * am_shape_rows(&a->site->out);
    const am_act act = am_gated_act(a->site);
    real *value = a->scratch;
    for (int64_t r = 0; r < R; r++) {
        const real *x = a->x[0] + 2 * r * F, *dot = a->x_dot[0] + 2 * r * F;
        real *y = a->y_dot + r * F;
        AM_R(am_act_backward)(act, F, x, dot, y);
        am_gated_times(F, y, x + F, y);
        AM_R(am_act_forward)(act, 1, F, NULL, (real *)x, value);
        am_gated_times(F, value, dot + F, value);
        AM_R(am_layer_sum)(F, value, y);
    }
}

static int64_t am_gated_scratch(const am_layer_site *s, int64_t B)
{
    (void)B;
    return am_shape_features(&s->out) * (int64_t)sizeof(real);
}

/* d gate_dot = (dy_dot up + dy up_dot) act'(gate) + dy up act''(gate) gate_dot;
 * d up_dot = dy_dot act(gate) + dy act'(gate) gate_dot */
static void am_gated_curve(const am_layer_args *a)
{
    const int64_t F = am_shape_features(&a->site->out), R = a->B * am_shape_rows(&a->site->out);
    const am_act act = am_gated_act(a->site);
    real *d = a->scratch, *d_dot = d + F;
    for (int64_t r = 0; r < R; r++) {
        const real *x = a->x[0] + 2 * r * F, *dot = a->x_dot[0] + 2 * r * F;
        const real *dy = a->dy + r * F, *dy_dot = a->dy_dot + r * F;
        real *dx_dot = a->dx_dot[0] + 2 * r * F;
        am_gated_times(F, dy, x + F, d);
        am_gated_times(F, dy_dot, x + F, dx_dot);
        am_gated_times(F, dy, dot + F, d_dot);
        AM_R(am_layer_sum)(F, dx_dot, d_dot);
        AM_R(am_act_curve)(act, F, x, dot, d, d_dot, dx_dot);
        AM_R(am_act_forward)(act, 1, F, NULL, (real *)x, d);
        am_gated_times(F, d, dy_dot, d);
        AM_R(am_act_backward)(act, F, x, dot, d_dot);
        am_gated_times(F, d_dot, dy, dx_dot + F);
        AM_R(am_layer_sum)(F, d, dx_dot + F);
    }
}

static int64_t am_gated_curve_scratch(const am_layer_site *s, int64_t B)
{
    return 2 * am_gated_scratch(s, B);
}

const am_layer AM_R(am_layer_gated) = {
    .name = "gated",
    .summary = "act(first half) times second half",
    .attrs = attrs,
    .inputs = 1,
    .axes = {.rule = AM_AXES_HALVES},
    .shape = am_gated_shape,
    .uses = am_gated_uses,
    .scratch = am_gated_scratch,
    .curve_scratch = am_gated_curve_scratch,
    .forward = am_gated_forward,
    .backward = am_gated_backward,
    .tangent = am_gated_tangent,
    .curve = am_gated_curve,
};
