/* See lora.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/lora.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/clones.h"
#include "mpi/error.h"

void am_lora_options_free(am_lora_options *options)
{
    for (int i = 0; i < options->n_targets; i++) {
        free(options->target[i]);
    }
    free(options->target);
    *options = (am_lora_options){0};
}

double am_lora_scale(const am_lora_options *options)
{
    const double r = (double)options->r;
    return options->lora_alpha / (options->use_rslora ? sqrt(r) : r);
}

int am_lora_target(am_lora_options *options, const char *pattern)
{
    char **target = am_new(options->n_targets + 1, sizeof *target, "target_modules");
    char *copy = am_new((int64_t)strlen(pattern) + 1, 1, "target_modules");
    if (target == NULL || copy == NULL) {
        free(target);
        free(copy);
        return AM_E_NOMEM;
    }
    memcpy(copy, pattern, strlen(pattern));
    if (options->n_targets > 0) {
        memcpy(target, options->target, (size_t)options->n_targets * sizeof *target);
    }
    free(options->target);
    options->target = target;
    options->target[options->n_targets++] = copy;
    return 0;
}

/* ---- the rewrite ---- */

static bool is_product(const am_net_node *node)
{
    return strcmp(node->layer->name, "linear") == 0 || strcmp(node->layer->name, "conv2d") == 0;
}

/* The pattern fits the name, or its end after a dot. */
static bool fits(const char *pattern, const char *name)
{
    bool is_match = fnmatch(pattern, name, 0) == 0;
    for (const char *dot = strchr(name, '.'); dot != NULL && !is_match;
         dot = strchr(dot + 1, '.')) {
        is_match = fnmatch(pattern, dot + 1, 0) == 0;
    }
    return is_match;
}

static int check_targets(const am_net *net, const am_lora_options *o)
{
    for (int k = 0; k < o->n_targets; k++) {
        bool is_used = false;
        for (int i = 0; i < net->n; i++) {
            is_used =
                is_used || (is_product(&net->node[i]) && fits(o->target[k], net->node[i].name));
        }
        if (!is_used) {
            return am_fail(AM_E_RECIPE,
                           "lora: target_modules: no layer linear or conv2d is called '%s'",
                           o->target[k]);
        }
    }
    return 0;
}

static bool is_target(const am_net_node *node, const am_lora_options *o)
{
    bool is = false;
    for (int k = 0; k < o->n_targets; k++) {
        is = is || fits(o->target[k], node->name);
    }
    return is && is_product(node);
}

static int set_attr(const am_net_node *node, void *attrs, const char *key, const char *text)
{
    return am_param_set(node->layer->attrs, attrs, key, text, node->name);
}

/* The choice `activation` of a product, as its text. */
static void activation_of(const am_net_node *node, char *text, size_t bytes)
{
    const am_param *p = &node->layer->attrs[am_param_find(node->layer->attrs, "activation")];
    const char *at = p->choices;
    int choice;
    memcpy(&choice, node->attrs + p->offset, sizeof choice);
    for (int i = 0; i < choice; i++) {
        at = strchr(at, '|') + 1;
    }
    snprintf(text, bytes, "%.*s", (int)strcspn(at, "|"), at);
}

static void name_of(const am_net_node *node, const char *part, char *text)
{
    snprintf(text, 2 * AM_NET_NAME, "%s.%s", node->name, part);
}

/* The nodes of one adapter around its product; *value: what they make. */
static int add_adapter(const am_net_node *node, const int *in, const am_lora_options *o,
                       am_net *out, int *value)
{
    _Alignas(16) unsigned char base[AM_LAYER_ATTR_BYTES], low[AM_LAYER_ATTR_BYTES];
    char activation[32], rank[32], name[2 * AM_NET_NAME];
    int x = in[0];
    activation_of(node, activation, sizeof activation);
    snprintf(rank, sizeof rank, "%lld", (long long)o->r);
    memcpy(base, node->attrs, sizeof base);
    int rc = set_attr(node, base, "activation", "none");
    memcpy(low, base, sizeof low);
    AM_KEEP(set_attr(node, low, "out", rank));
    AM_KEEP(set_attr(node, low, "bias", "no"));
    AM_KEEP(am_net_add_node(out, node->name, node->index, in, base));
    const int product = out->n;
    if (rc == 0 && o->lora_dropout > 0) {
        name_of(node, "lora_dropout", name);
        x = am_net_add(out, name, "dropout", x, "rate=%.17g", o->lora_dropout);
    }
    name_of(node, "lora_A", name);
    AM_KEEP(out->error);
    AM_KEEP(am_net_add_node(out, name, node->index, &x, low));
    if (rc != 0) {
        return rc;
    }
    out->node[out->n - 1].is_adapter = true;
    name_of(node, "lora_B", name);
    *value = am_net_add2(out, name, "lora", product, out->n, "scale=%.17g activation=%s",
                         am_lora_scale(o), activation);
    out->node[out->n - 1].is_adapter = true;
    return out->error;
}

static int copy_nodes(const am_net *net, const am_lora_options *o, int *value, am_net *out)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < net->n; i++) {
        const am_net_node *node = &net->node[i];
        int in[AM_LAYER_INPUTS] = {0};
        for (int k = 0; k < node->layer->inputs; k++) {
            in[k] = value[node->in[k]];
        }
        if (node->is_cut) {
            am_net_cut(out);
        }
        if (is_target(node, o)) {
            rc = add_adapter(node, in, o, out, &value[i + 1]);
        } else {
            rc = am_net_add_node(out, node->name, node->index, in, node->attrs);
            value[i + 1] = out->n;
        }
    }
    return rc;
}

int am_lora_adapt(const am_net *net, const am_lora_options *options, am_net *out)
{
    *out = (am_net){.error = net->error, .smoothing = net->smoothing, .recompute = net->recompute};
    int *value = am_new((int64_t)net->n + 1, sizeof *value, "network");
    int rc = value == NULL ? AM_E_NOMEM : net->error;
    AM_KEEP(check_targets(net, options));
    AM_KEEP(copy_nodes(net, options, value, out));
    for (int i = 0; i < net->n_freeze; i++) {
        AM_KEEP(am_net_freeze(out, net->freeze[i]));
    }
    if (rc == 0 && net->features > 0) {
        rc = am_net_shape(out, net->features);
    }
    free(value);
    return rc;
}

int am_lora_pairs(const am_net *adapted, am_lora_pair *pair)
{
    int n = 0;
    for (int i = 0; i < adapted->n; i++) {
        const am_net_node *b = &adapted->node[i];
        if (!b->is_adapter || b->layer->inputs != 2) {
            continue;
        }
        const am_net_node *w = &adapted->node[b->in[0] - 1], *a = &adapted->node[b->in[1] - 1];
        const am_tensor *t = &adapted->trunk.tensors.t[w->tensor[0]];
        const int scale = am_param_find(b->layer->attrs, "scale");
        pair[n] = (am_lora_pair){.w = w->tensor[0],
                                 .a = a->tensor[0],
                                 .b = b->tensor[0],
                                 .rank = am_shape_features(&a->site.out),
                                 .rows = t->shape[0],
                                 .cols = t->numel / t->shape[0]};
        memcpy(&pair[n].scale, b->attrs + b->layer->attrs[scale].offset, sizeof(double));
        n++;
    }
    return n;
}

/* ---- values ---- */

static size_t bytes_of(const am_param_layout *layout)
{
    return layout->tensors.n > 0 ? (size_t)am_dtype_bytes(layout->tensors.t[0].dtype) : 0;
}

/* Copy the tensors that both have. */
static void copy_tensors(const am_net *adapted, const am_param_layout *layout, bool is_back,
                         const char *from, char *to)
{
    const size_t size = bytes_of(layout);
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        const am_tensor *t = &layout->tensors.t[k];
        const int64_t i = am_tensor_table_find(&adapted->trunk.tensors, t->name);
        AM_ASSERT(i >= 0 && adapted->trunk.tensors.t[i].numel == t->numel);
        const size_t in_whole = (size_t)layout->offset[k] * size;
        const size_t in_trunk = (size_t)adapted->trunk.offset[i] * size;
        memcpy(to + (is_back ? in_whole : in_trunk), from + (is_back ? in_trunk : in_whole),
               (size_t)t->numel * size);
    }
}

void am_lora_unfold(const am_net *adapted, const am_param_layout *layout, const void *whole,
                    void *trunk)
{
    copy_tensors(adapted, layout, false, whole, trunk);
}

static void widen(const char *from, size_t size, int64_t at, int64_t n, double *to)
{
    for (int64_t i = 0; i < n; i++) {
        to[i] = size == sizeof(double) ? ((const double *)(const void *)from)[at + i]
                                       : (double)((const float *)(const void *)from)[at + i];
    }
}

/* row [cols] = sum_k b[k] a[k, cols] */
AM_CLONES static void product_row(int64_t rank, int64_t cols, const double *b, const double *a,
                                  double *restrict row)
{
    memset(row, 0, (size_t)cols * sizeof *row);
    for (int64_t k = 0; k < rank; k++) {
        const double *restrict line = a + k * cols;
        for (int64_t j = 0; j < cols; j++) {
            row[j] += b[k] * line[j];
        }
    }
}

static void add_row(char *whole, size_t size, int64_t at, int64_t n, double scale,
                    const double *row)
{
    for (int64_t j = 0; j < n; j++) {
        if (size == sizeof(double)) {
            ((double *)(void *)whole)[at + j] += scale * row[j];
        } else {
            float *w = (float *)(void *)whole + at + j;
            *w = (float)((double)*w + scale * row[j]);
        }
    }
}

static int fold_pair(const am_net *adapted, const am_param_layout *layout, const am_lora_pair *p,
                     const char *trunk, char *whole)
{
    const size_t size = bytes_of(layout);
    const int64_t *at = adapted->trunk.offset;
    const char *name = adapted->trunk.tensors.t[p->w].name;
    const int64_t w = layout->offset[am_tensor_table_find(&layout->tensors, name)];
    double *a = am_new(p->rank * p->cols, sizeof *a, "an adapter");
    double *row = am_new(p->cols + p->rank, sizeof *row, "an adapter");
    const int rc = a == NULL || row == NULL ? AM_E_NOMEM : 0;
    if (rc == 0) {
        widen(trunk, size, at[p->a], p->rank * p->cols, a);
    }
    for (int64_t i = 0; rc == 0 && i < p->rows; i++) {
        double *b = row + p->cols;
        widen(trunk, size, at[p->b] + i * p->rank, p->rank, b);
        product_row(p->rank, p->cols, b, a, row);
        add_row(whole, size, w + i * p->cols, p->cols, p->scale, row);
    }
    free(a);
    free(row);
    return rc;
}

int am_lora_fold(const am_net *adapted, const am_param_layout *layout, const void *trunk,
                 void *whole)
{
    am_lora_pair *pair = am_new(adapted->n, sizeof *pair, "adapters");
    int rc = pair == NULL ? AM_E_NOMEM : 0;
    if (rc == 0) {
        copy_tensors(adapted, layout, true, trunk, whole);
    }
    const int n = rc == 0 ? am_lora_pairs(adapted, pair) : 0;
    for (int i = 0; i < n && rc == 0; i++) {
        rc = fold_pair(adapted, layout, &pair[i], trunk, whole);
    }
    free(pair);
    return rc;
}
