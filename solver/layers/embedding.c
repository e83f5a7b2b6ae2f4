/* Token embedding: y[b,t,:] = E[id[b,t],:]. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

typedef struct am_embedding {
    int64_t vocabulary, width;
    double sigma;
} am_embedding;

static const am_param attrs[] = {
    {"vocabulary", AM_PARAM_INT, offsetof(am_embedding, vocabulary), "256", 1, 1 << 24, NULL,
     "tokens: ids are below this"},
    {"width", AM_PARAM_INT, offsetof(am_embedding, width), NULL, 1, INT32_MAX, NULL,
     "features of a token"},
    {"sigma", AM_PARAM_REAL, offsetof(am_embedding, sigma), "0.02", 0, 1e6, NULL,
     "deviation of the initial values"},
    {0},
};

static int am_embedding_shape(const am_layer_site *s, am_shape *out)
{
    *out = (am_shape){.n = 2, .d = {s->in[0].d[0], ((const am_embedding *)s->attrs)->width}};
    return 0;
}

static int64_t am_embedding_vocabulary(const void *own)
{
    return ((const am_embedding *)own)->vocabulary;
}

static int am_embedding_params(const am_layer_site *s, am_layer_param *p)
{
    const am_embedding *o = s->attrs;
    p[0] = (am_layer_param){.suffix = "weight", .n = 2, .sigma = o->sigma};
    p[0].d[0] = o->vocabulary;
    p[0].d[1] = o->width;
    return 1;
}

static void am_embedding_gather(const am_layer_args *a, const real *table, real *y)
{
    const int64_t W = am_shape_features(&a->site->out), n = a->B * am_shape_rows(&a->site->out);
    for (int64_t i = 0; i < n; i++) {
        memcpy(y + i * W, table + (int64_t)a->ids[i] * W, (size_t)W * sizeof(real));
    }
}

static void am_embedding_forward(const am_layer_args *a)
{
    am_embedding_gather(a, a->param[0], a->y);
}

/* dE[id,:] = sum of dy over the places of id, in their order */
static void am_embedding_backward(const am_layer_args *a)
{
    const am_embedding *o = a->site->attrs;
    const int64_t W = o->width, n = a->B * am_shape_rows(&a->site->out);
    if (a->dparam[0] == NULL) {
        return;
    }
    memset(a->dparam[0], 0, (size_t)(o->vocabulary * W) * sizeof(real));
    for (int64_t i = 0; i < n; i++) {
        AM_R(am_layer_sum)(W, a->dy + i * W, a->dparam[0] + (int64_t)a->ids[i] * W);
    }
}

static void am_embedding_tangent(const am_layer_args *a)
{
    am_embedding_gather(a, a->param_dot[0], a->y_dot);
}

static void am_embedding_curve(const am_layer_args *a)
{
    const am_layer_args dots = AM_R(am_layer_dots)(a);
    am_embedding_backward(&dots);
}

const am_layer AM_R(am_layer_embedding) = {
    .name = "embedding",
    .summary = "a learned row for every token",
    .attrs = attrs,
    .inputs = 1,
    .takes_ids = true,
    .vocabulary = am_embedding_vocabulary,
    .axes = {.rule = AM_AXES_NEW, .param = {{AM_AXIS_FIXED, AM_AXIS_OUT}}},
    .shape = am_embedding_shape,
    .params = am_embedding_params,
    .forward = am_embedding_forward,
    .backward = am_embedding_backward,
    .tangent = am_embedding_tangent,
    .curve = am_embedding_curve,
};
