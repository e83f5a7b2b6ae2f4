/* Building networks and finding their shapes. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/net.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "solver/training/net_internal.h"

/* Longest side of a value: a GEMM dimension must fit BLAS's int. */
static const int64_t AM_MAX_SIDE = INT32_MAX;

/* ---- building ---- */

/* "key=value key=value" into the attributes of a node. */
static int am_net_set(am_net_node *node, char *text)
{
    static const am_param none[] = {{0}};
    const am_param *table = node->layer->attrs != NULL ? node->layer->attrs : none;
    int rc = am_param_defaults(table, node->attrs);
    char *rest = NULL;
    for (char *word = strtok_r(text, " ", &rest); rc == 0 && word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        AM_ASSERT(equals != NULL);
        *equals = '\0';
        rc = am_param_set(table, node->attrs, word, equals + 1, node->name);
    }
    return rc;
}

static int am_net_reserve(am_net *net)
{
    if (net->n < net->capacity) {
        return 0;
    }
    if (net->n >= AM_NET_MAX_NODES) {
        return am_fail(AM_E_RECIPE, "network: more than %d layers", AM_NET_MAX_NODES);
    }
    const int capacity = net->capacity == 0 ? 16 : 2 * net->capacity;
    am_net_node *node = am_new(capacity, sizeof *node, "network");
    if (node == NULL) {
        return AM_E_NOMEM;
    }
    if (net->n > 0) {
        memcpy(node, net->node, (size_t)net->n * sizeof *node);
    }
    free(net->node);
    net->node = node;
    net->capacity = capacity;
    return 0;
}

/* Append a node with default attributes. */
static int am_net_begin(am_net *net, const char *name, int layer, const int *in)
{
    const int rc = am_net_reserve(net);
    if (rc != 0) {
        return rc;
    }
    am_net_node *node = &net->node[net->n];
    *node = (am_net_node){.layer = am_layer_at(layer), .index = layer, .is_cut = net->cut_next};
    const int length = snprintf(node->name, sizeof node->name, "%s", name);
    if (length <= 0 || length >= AM_NET_NAME) {
        return am_fail(AM_E_RECIPE, "network: the name of layer '%s' needs 1 to %d characters",
                       name, AM_NET_NAME - 1);
    }
    for (int i = 0; i < node->layer->inputs; i++) {
        AM_ASSERT(in[i] >= 0 && in[i] <= net->n);
        node->in[i] = in[i];
    }
    net->cut_next = false;
    net->n++;
    return 0;
}

int am_net_add_node(am_net *net, const char *name, int layer, const int *in, const void *attrs)
{
    const int rc = am_net_begin(net, name, layer, in);
    if (rc == 0) {
        memcpy(net->node[net->n - 1].attrs, attrs, AM_LAYER_ATTR_BYTES);
    }
    return rc;
}

static int am_net_append(am_net *net, const char *name, const char *layer, const int *in, int n_in,
                         const char *format, va_list values)
{
    char text[512];
    const int index = am_layer_find(layer);
    const int used = vsnprintf(text, sizeof text, format, values);
    AM_ASSERT(used >= 0 && used < (int)sizeof text);
    if (index < 0) {
        return am_fail(AM_E_RECIPE, "network: there is no layer '%s'", layer);
    }
    AM_ASSERT(am_layer_at(index)->inputs == n_in);
    const int rc = am_net_begin(net, name, index, in);
    return rc == 0 ? am_net_set(&net->node[net->n - 1], text) : rc;
}

int am_net_add(am_net *net, const char *name, const char *layer, int in, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    if (net->error == 0) {
        net->error = am_net_append(net, name, layer, &in, 1, format, values);
    }
    va_end(values);
    return net->n;
}

int am_net_add2(am_net *net, const char *name, const char *layer, int in0, int in1,
                const char *format, ...)
{
    va_list values;
    va_start(values, format);
    if (net->error == 0) {
        net->error = am_net_append(net, name, layer, (int[]){in0, in1}, 2, format, values);
    }
    va_end(values);
    return net->n;
}

void am_net_cut(am_net *net)
{
    net->cut_next = true;
}

int am_net_freeze(am_net *net, const char *pattern)
{
    char **freeze = am_new(net->n_freeze + 1, sizeof *freeze, "frozen tensors");
    char *copy = am_new((int64_t)strlen(pattern) + 1, 1, "frozen tensors");
    if (freeze == NULL || copy == NULL) {
        free(freeze);
        free(copy);
        return AM_E_NOMEM;
    }
    memcpy(copy, pattern, strlen(pattern));
    if (net->n_freeze > 0) {
        memcpy(freeze, net->freeze, (size_t)net->n_freeze * sizeof *freeze);
    }
    free(net->freeze);
    net->freeze = freeze;
    net->freeze[net->n_freeze++] = copy;
    return 0;
}

void am_net_free(am_net *net)
{
    for (int i = 0; i < net->n_freeze; i++) {
        free(net->freeze[i]);
    }
    free(net->freeze);
    free(net->node);
    am_param_layout_free(&net->trunk);
    *net = (am_net){0};
}

int am_net_copy(const am_net *net, am_net *out)
{
    *out = (am_net){.error = net->error,
                    .smoothing = net->smoothing,
                    .anchor = net->anchor,
                    .recompute = net->recompute};
    out->node = am_new(net->n > 0 ? net->n : 1, sizeof *out->node, "network");
    int rc = out->node == NULL ? AM_E_NOMEM : 0;
    if (rc == 0 && net->n > 0) {
        memcpy(out->node, net->node, (size_t)net->n * sizeof *out->node);
        out->n = out->capacity = net->n;
    }
    for (int i = 0; i < net->n_freeze; i++) {
        AM_KEEP(am_net_freeze(out, net->freeze[i]));
    }
    if (rc == 0 && net->features > 0) {
        rc = am_net_shape(out, net->features);
    }
    if (rc != 0) {
        am_net_free(out);
    }
    return rc;
}

/* ---- shapes ---- */

static const am_shape *am_net_value(const am_net *net, int value, const am_shape *samples)
{
    return value == AM_NET_SAMPLES ? samples : &net->node[value - 1].site.out;
}

static int am_net_shape_node(am_net *net, am_net_node *node, const am_shape *samples)
{
    node->site = (am_layer_site){.name = node->name, .attrs = node->attrs};
    for (int i = 0; i < node->layer->inputs; i++) {
        node->site.in[i] = *am_net_value(net, node->in[i], samples);
        if (node->site.in[i].is_ids != node->layer->takes_ids) {
            return am_layer_fail(&node->site,
                                 node->layer->takes_ids
                                     ? "%s takes token ids: make it the first layer"
                                     : "%s takes reals, not token ids: put an embedding before it",
                                 node->layer->name);
        }
    }
    const int rc = node->layer->shape(&node->site, &node->site.out);
    if (rc != 0) {
        return rc;
    }
    const am_shape *out = &node->site.out;
    for (int i = 0; i < out->n; i++) {
        if (out->d[i] < 1 || out->d[i] > AM_MAX_SIDE) {
            return am_layer_fail(&node->site,
                                 "the output would be %s: every side must be 1 to %lld",
                                 am_shape_text(out), (long long)AM_MAX_SIDE);
        }
    }
    return 0;
}

static int am_net_check(const am_net *net)
{
    if (net->error != 0) {
        return net->error;
    }
    if (net->n < 1) {
        return am_fail(AM_E_RECIPE, "network: there is no layer");
    }
    if (!(net->smoothing >= 0 && net->smoothing < 1)) {
        return am_fail(AM_E_RECIPE, "network: label smoothing must be in [0, 1), not %g",
                       net->smoothing);
    }
    for (int i = 0; i < net->n; i++) {
        bool is_used = i == net->n - 1;
        for (int j = i + 1; j < net->n; j++) {
            is_used = is_used || net->node[j].in[0] == i + 1 ||
                      (net->node[j].layer->inputs == 2 && net->node[j].in[1] == i + 1);
            if (strcmp(net->node[i].name, net->node[j].name) == 0) {
                return am_fail(AM_E_RECIPE, "network: two layers are called %s", net->node[i].name);
            }
        }
        if (!is_used) {
            return am_fail(AM_E_RECIPE, "layer %s: nothing uses its output", net->node[i].name);
        }
    }
    return 0;
}

/* Token ids come in where the first user of the samples takes them. */
static void am_net_find_ids(am_net *net)
{
    net->takes_ids = false;
    net->vocabulary = 0;
    for (int i = net->n - 1; i >= 0; i--) {
        const am_layer *layer = net->node[i].layer;
        if (net->node[i].in[0] == AM_NET_SAMPLES) {
            net->takes_ids = layer->takes_ids;
        }
        if (layer->takes_ids) {
            const int64_t own = layer->vocabulary(net->node[i].attrs);
            net->vocabulary = net->vocabulary == 0 || own < net->vocabulary ? own : net->vocabulary;
        }
    }
}

int am_net_shape(am_net *net, int64_t features)
{
    am_param_layout_free(&net->trunk);
    net->features = 0;
    int rc = am_net_check(net);
    if (rc == 0 && (features < 1 || features > AM_MAX_SIDE)) {
        rc = am_fail(AM_E_RECIPE, "network: samples need 1 or more features, not %lld",
                     (long long)features);
    }
    if (rc != 0) {
        return rc;
    }
    am_net_find_ids(net);
    const am_shape samples = {.n = 1, .d = {features}, .is_ids = net->takes_ids};
    for (int i = 0; rc == 0 && i < net->n; i++) {
        rc = am_net_shape_node(net, &net->node[i], &samples);
    }
    AM_KEEP(am_net_trunk_layout(net, AM_DTYPE_F32, &net->trunk));
    if (rc == 0) {
        am_net_find_params(net);
        net->features = features;
        net->out = net->node[net->n - 1].site.out;
    }
    return rc;
}

int64_t am_net_labels(const am_net *net)
{
    return am_shape_rows(&net->out);
}

int am_net_fits(const am_net *net, const am_samples *samples)
{
    if (samples->features != net->features) {
        return am_fail(AM_E_RECIPE, "%s: samples have %lld features, the network takes %lld",
                       samples->label, (long long)samples->features, (long long)net->features);
    }
    const int64_t labels = samples->labels == 0 ? 1 : samples->labels;
    if (labels != am_net_labels(net)) {
        return am_fail(AM_E_RECIPE,
                       "%s: samples have %lld label%s, the network ends in %s and needs %lld: pool "
                       "its last value to classify samples, keep the positions to model sequences",
                       samples->label, (long long)labels, labels == 1 ? "" : "s",
                       am_shape_text(&net->out), (long long)am_net_labels(net));
    }
    return 0;
}
