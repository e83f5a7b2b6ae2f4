/* Names, initial values and places of the parameters of a network: tensors lie end to end in name
 * order, so that a slice of the tensors is a range of the block. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "solver/training/net_internal.h"

void am_param_layout_free(am_param_layout *layout)
{
    am_tensor_table_free(&layout->tensors);
    free(layout->offset);
    free(layout->home);
    free(layout->number);
    free(layout->fill);
    free(layout->sigma);
    free(layout->spread);
    free(layout->rate);
    free(layout->is_frozen);
    *layout = (am_param_layout){0};
}

bool am_param_is_trained(const am_param_layout *layout, int64_t k)
{
    return !layout->is_frozen[k] && layout->rate[k] == 0;
}

enum { AM_TENSOR_NAME = AM_NET_NAME + 32 };

static void am_layout_name(char *text, const char *prefix, const am_layer_param *param)
{
    snprintf(text, AM_TENSOR_NAME, "%s.%s", prefix, param->suffix);
}

/* Sort the table and give every tensor its place. */
static int am_layout_place(am_param_layout *layout)
{
    const int rc = am_tensor_table_finish(&layout->tensors);
    const int64_t n = layout->tensors.n > 0 ? layout->tensors.n : 1;
    if (rc != 0) {
        return rc;
    }
    layout->offset = am_new(n, sizeof *layout->offset, "layout");
    layout->home = am_new(n, sizeof *layout->home, "layout");
    layout->number = am_new(n, sizeof *layout->number, "layout");
    layout->fill = am_new(n, sizeof *layout->fill, "layout");
    layout->sigma = am_new(n, sizeof *layout->sigma, "layout");
    layout->spread = am_new(n, sizeof *layout->spread, "layout");
    layout->rate = am_new(n, sizeof *layout->rate, "layout");
    layout->is_frozen = am_new(n, sizeof *layout->is_frozen, "layout");
    if (!layout->offset || !layout->home || !layout->number || !layout->fill || !layout->sigma ||
        !layout->spread || !layout->rate || !layout->is_frozen) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < layout->tensors.n; i++) {
        layout->offset[i] = layout->home[i] = layout->n;
        layout->number[i] = i;
        layout->n += layout->tensors.t[i].numel;
    }
    return 0;
}

static int64_t am_layout_describe(am_param_layout *layout, const char *prefix,
                                  const am_layer_param *param)
{
    char name[AM_TENSOR_NAME];
    am_layout_name(name, prefix, param);
    const int64_t i = am_tensor_table_find(&layout->tensors, name);
    AM_ASSERT(i >= 0);
    layout->fill[i] = param->fill;
    layout->sigma[i] = param->sigma;
    layout->spread[i] = param->spread;
    layout->rate[i] = param->rate;
    return i;
}

static int am_layout_add(am_param_layout *layout, const char *prefix, am_dtype dtype,
                         const am_layer_param *param)
{
    char name[AM_TENSOR_NAME];
    am_layout_name(name, prefix, param);
    return am_tensor_table_add(&layout->tensors, name, dtype, param->n, param->d);
}

static int am_layout_freeze(const am_net *net, am_param_layout *layout)
{
    for (int k = 0; k < net->n_freeze; k++) {
        int64_t found = 0;
        for (int64_t i = 0; i < layout->tensors.n; i++) {
            if (fnmatch(net->freeze[k], layout->tensors.t[i].name, 0) == 0) {
                layout->is_frozen[i] = true;
                found++;
            }
        }
        if (found == 0) {
            return am_fail(AM_E_RECIPE, "network: no tensor is called '%s', so nothing is frozen",
                           net->freeze[k]);
        }
    }
    return 0;
}

/* Adapters alone are trained where there are some. */
static void am_layout_freeze_base(const am_net *net, am_param_layout *layout)
{
    am_layer_param p[AM_LAYER_PARAMS];
    char name[AM_TENSOR_NAME];
    bool has_adapters = false;
    for (int i = 0; i < net->n; i++) {
        has_adapters = has_adapters || net->node[i].is_adapter;
    }
    for (int i = 0; has_adapters && i < net->n; i++) {
        const am_net_node *node = &net->node[i];
        const int n = node->layer->params != NULL ? node->layer->params(&node->site, p) : 0;
        for (int k = 0; k < n; k++) {
            am_layout_name(name, node->name, &p[k]);
            layout->is_frozen[am_tensor_table_find(&layout->tensors, name)] = !node->is_adapter;
        }
    }
}

/* What a node declares; the first factor of an adapter begins as PEFT's does: uniform within
 * 1 / sqrt(inputs of an output). */
static int am_node_params(const am_net_node *node, am_layer_param *p)
{
    const int n = node->layer->params != NULL ? node->layer->params(&node->site, p) : 0;
    if (node->is_adapter && n > 0 && node->layer->inputs == 1) {
        double inputs = 1;
        for (int d = 1; d < p[0].n; d++) {
            inputs *= (double)p[0].d[d];
        }
        p[0].sigma = 0;
        p[0].spread = 1 / sqrt(inputs);
    }
    return n;
}

int am_net_trunk_layout(const am_net *net, am_dtype dtype, am_param_layout *out)
{
    am_layer_param p[AM_LAYER_PARAMS];
    int rc = 0;
    *out = (am_param_layout){0};
    for (int i = 0; i < net->n; i++) {
        const am_net_node *node = &net->node[i];
        const int n = am_node_params(node, p);
        for (int k = 0; k < n; k++) {
            AM_KEEP(am_layout_add(out, node->name, dtype, &p[k]));
        }
    }
    AM_KEEP(am_layout_place(out));
    for (int i = 0; rc == 0 && i < net->n; i++) {
        const am_net_node *node = &net->node[i];
        const int n = am_node_params(node, p);
        for (int k = 0; k < n; k++) {
            am_layout_describe(out, node->name, &p[k]);
        }
    }
    AM_KEEP(am_layout_freeze(net, out));
    if (rc == 0) {
        am_layout_freeze_base(net, out);
    } else {
        am_param_layout_free(out);
    }
    return rc;
}

int am_param_layout_part(const am_param_layout *whole, am_param_layout *out)
{
    int rc = 0;
    *out = (am_param_layout){0};
    for (int64_t i = 0; i < whole->tensors.n; i++) {
        const am_tensor *t = &whole->tensors.t[i];
        if (!whole->is_frozen[i]) {
            AM_KEEP(am_tensor_table_add(&out->tensors, t->name, t->dtype, t->ndim, t->shape));
        }
    }
    AM_KEEP(am_layout_place(out));
    for (int64_t i = 0, k = 0; rc == 0 && i < whole->tensors.n; i++) {
        if (!whole->is_frozen[i]) { /* in name order, as the whole is */
            out->home[k] = whole->offset[i];
            out->number[k] = i;
            out->fill[k] = whole->fill[i];
            out->sigma[k] = whole->sigma[i];
            out->spread[k] = whole->spread[i];
            out->rate[k++] = whole->rate[i];
        }
    }
    if (rc != 0) {
        am_param_layout_free(out);
    }
    return rc;
}

/* Where the gradient of tensor t begins in that of the trunk. */
static int64_t am_net_gradient_at(const am_net *net, int64_t t)
{
    int64_t at = 0;
    for (int64_t i = 0; i < t; i++) {
        at += net->trunk.is_frozen[i] ? 0 : net->trunk.tensors.t[i].numel;
    }
    return at;
}

void am_net_find_params(am_net *net)
{
    am_layer_param p[AM_LAYER_PARAMS];
    char name[AM_TENSOR_NAME];
    net->gradient_n = am_net_gradient_at(net, net->trunk.tensors.n);
    for (int i = 0; i < net->n; i++) {
        am_net_node *node = &net->node[i];
        node->n_params = node->layer->params != NULL ? node->layer->params(&node->site, p) : 0;
        node->has_fixed_statistics = false;
        for (int k = 0; k < node->n_params; k++) {
            am_layout_name(name, node->name, &p[k]);
            const int64_t t = am_tensor_table_find(&net->trunk.tensors, name);
            AM_ASSERT(t >= 0);
            node->tensor[k] = (int)t;
            node->offset[k] = net->trunk.offset[t];
            node->gradient[k] = net->trunk.is_frozen[t] ? -1 : am_net_gradient_at(net, t);
            node->has_fixed_statistics =
                node->has_fixed_statistics || (net->trunk.is_frozen[t] && net->trunk.rate[t] != 0);
        }
    }
}

int am_net_head_layout(const am_net *net, int64_t classes, am_dtype dtype, am_param_layout *out)
{
    const int64_t features = am_shape_features(&net->out);
    *out = (am_param_layout){0};
    if (classes < 1 || classes > INT32_MAX) {
        return am_fail(AM_E_RECIPE, "network: a head needs 1 or more classes, not %lld",
                       (long long)classes);
    }
    const am_layer_param weight = {
        .suffix = "weight", .n = 2, .d = {classes, features}, .sigma = sqrt(1 / (double)features)};
    const am_layer_param bias = {.suffix = "bias", .n = 1, .d = {classes}};
    int rc = am_layout_add(out, "head", dtype, &weight);
    AM_KEEP(am_layout_add(out, "head", dtype, &bias));
    AM_KEEP(am_layout_place(out));
    if (rc != 0) {
        am_param_layout_free(out);
        return rc;
    }
    am_layout_describe(out, "head", &weight);
    am_layout_describe(out, "head", &bias);
    return 0;
}
