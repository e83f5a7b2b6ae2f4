/* Elementwise function as a layer of its own: y = act(x). Behind a product give the product its
 * `activation` instead: that saves a sweep and an array. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_activation.h"
#include "solver/training/real_layer.h"

typedef struct am_activation {
    int function;
} am_activation;

static const am_param attrs[] = {
    {"function", AM_PARAM_CHOICE, offsetof(am_activation, function), "relu", 0, 0, AM_ACT_CHOICES,
     "elementwise function"},
    {0},
};

static am_act am_activation_of(const am_layer_site *s)
{
    return (am_act)((const am_activation *)s->attrs)->function;
}

static int am_activation_shape(const am_layer_site *s, am_shape *out)
{
    *out = s->in[0];
    return 0;
}

static unsigned am_activation_uses(const am_layer_site *s)
{
    return AM_R(am_act_needs_z)(am_activation_of(s)) ? AM_LAYER_READS_X : AM_LAYER_READS_Y;
}

static void am_activation_forward(const am_layer_args *a)
{
    const int64_t n = a->B * am_shape_numel(&a->site->out);
    const am_act act = am_activation_of(a->site);
    if (AM_R(am_act_needs_z)(act)) {
        /* Without a bias z is only read. */
        AM_R(am_act_forward)(act, 1, n, NULL, (real *)a->x[0], a->y);
        return;
    }
    memcpy(a->y, a->x[0], (size_t)n * sizeof(real));
    AM_R(am_act_forward)(act, 1, n, NULL, a->y, a->y);
}

/* dx = dy act'(x) */
static void am_activation_backward(const am_layer_args *a)
{
    const int64_t n = a->B * am_shape_numel(&a->site->out);
    const am_act act = am_activation_of(a->site);
    const real *from = AM_R(am_act_needs_z)(act) ? a->x[0] : a->y;
    AM_R(am_act_backward)(act, n, from, a->dy, a->dx[0]);
}

static void am_activation_tangent(const am_layer_args *a)
{
    const int64_t n = a->B * am_shape_numel(&a->site->out);
    const am_act act = am_activation_of(a->site);
    const real *from = AM_R(am_act_needs_z)(act) ? a->x[0] : a->y;
    if (a->x_dot[0] == NULL) {
        memset(a->y_dot, 0, (size_t)n * sizeof(real));
    } else {
        AM_R(am_act_backward)(act, n, from, a->x_dot[0], a->y_dot);
    }
}

/* dx_dot = dy_dot act'(x) + dy act''(x) x_dot */
static void am_activation_curve(const am_layer_args *a)
{
    const int64_t n = a->B * am_shape_numel(&a->site->out);
    const am_act act = am_activation_of(a->site);
    const bool needs_z = AM_R(am_act_needs_z)(act);
    AM_R(am_act_curve)
    (act, n, needs_z ? a->x[0] : a->y, needs_z ? a->x_dot[0] : a->y_dot, a->dy, a->dy_dot,
     a->dx_dot[0]);
}

const am_layer AM_R(am_layer_activation) = {
    .name = "activation",
    .summary = "elementwise function",
    .attrs = attrs,
    .inputs = 1,
    .is_elementwise = true,
    .axes = {.rule = AM_AXES_SAME},
    .shape = am_activation_shape,
    .uses = am_activation_uses,
    .forward = am_activation_forward,
    .backward = am_activation_backward,
    .tangent = am_activation_tangent,
    .curve = am_activation_curve,
};
