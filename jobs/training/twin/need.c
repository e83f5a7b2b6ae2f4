/* What twins take: see twin.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/twin/router.h"

#include "mpi/error.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Features of n samples, with their labels. */
static int64_t features_bytes(const am_net *net, int64_t n)
{
    return n * (am_shape_features(&net->out) * (int64_t)sizeof(float) + (int64_t)sizeof(int32_t));
}

/* Parameters of the router, and what training it takes: a sum of gradients, AdamW's two arrays, a
 * copy on the tree for each of the few leaves. */
static int router_bytes(const am_net *router, int64_t real, int n_tasks, int64_t *kept,
                        int64_t *training)
{
    am_param_layout trunk = {0}, head = {0};
    int rc = am_net_trunk_layout(router, AM_DTYPE_F64, &trunk);
    AM_KEEP(am_net_head_layout(router, n_tasks, AM_DTYPE_F64, &head));
    *kept = (trunk.n + head.n) * real + 2 * router->features * (int64_t)sizeof(double);
    *training = 8 * (trunk.n + head.n) * real;
    am_param_layout_free(&trunk);
    am_param_layout_free(&head);
    return rc;
}

/* Expanded twins and a merged trunk while samples are evaluated; their weights, places, parts. */
static int64_t evaluate_bytes(const am_net *net, const am_twin_section *section, int64_t real,
                              int n_tasks, int64_t n)
{
    const int64_t twins = section->route == AM_TWIN_SOFT ? n_tasks : 1;
    return (twins + 1) * net->trunk.n * real +
           n * ((int64_t)n_tasks + 2) * (int64_t)sizeof(double) + features_bytes(net, n);
}

int am_twins_need_of(const am_net *net, const am_train_ops *ops, const am_twin_section *section,
                     int n_tasks, const int64_t *validation, const int64_t *evaluated,
                     am_twins_need *out)
{
    const int64_t real = am_dtype_bytes(ops->dtype), wide = (int64_t)sizeof(double);
    am_twin_layout layout = {0};
    am_net router = {0};
    int64_t seen = 0, most = 0, parameters = 0, training = 0, activations = 0;
    int rc = am_twin_layout_make(&net->trunk.tensors, section->compress, section->density, &layout);
    *out = (am_twins_need){0};
    AM_KEEP(am_router_net(am_shape_features(&net->out), section->hidden, &router));
    AM_KEEP(router_bytes(&router, real, n_tasks, &parameters, &training));
    AM_KEEP(ops->activation_bytes(&router, larger(section->batch, AM_EVAL_GROUP), n_tasks, true,
                                  &activations));
    for (int i = 0; rc == AM_OK && i < n_tasks; i++) {
        const int64_t half = validation[i] / 2;
        seen += section->samples > 0 && section->samples < half ? section->samples : half;
        most = larger(most, evaluated[i]);
    }
    const int64_t tensor = layout.largest * wide + layout.work_bytes;
    out->kept = n_tasks * (layout.values + layout.indices) * wide + parameters;
    out->compress = net->trunk.n * real + tensor;
    out->features = features_bytes(net, seen);
    out->route = out->features + training + activations;
    out->evaluate = evaluate_bytes(net, section, real, n_tasks, most) + larger(tensor, activations);
    am_twin_layout_free(&layout);
    am_net_free(&router);
    return rc;
}
