/* Where statistics lie: see stats.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/stats.h"

#include <stdio.h>
#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"

enum { NAME = AM_NET_NAME + 64 };

typedef struct product {
    const char *name;
    int64_t terms, rows; /* 0 terms: none */
} product;

/* Node i of the network, or after the last one the head. */
static product product_of(const am_net *net, int i)
{
    if (i == net->n) {
        return (product){"head", am_shape_features(&net->out), am_shape_rows(&net->out)};
    }
    const am_net_node *node = &net->node[i];
    const am_layer *layer = node->layer;
    return layer->product_terms == NULL ? (product){0}
                                        : (product){node->name, layer->product_terms(&node->site),
                                                    layer->product_rows(&node->site)};
}

/* The product of node i, if its Gram matrix is asked for. */
static product wanted_of(const am_net *net, const am_stats_options *options, int i)
{
    const bool is_in = options->last == 0 || (i >= options->first && i < options->last);
    return options->with_grams && is_in ? product_of(net, i) : (product){0};
}

static int add(am_stats_layout *l, const char *kind, const char *name, int ndim,
               const int64_t *shape)
{
    char full[NAME];
    snprintf(full, sizeof full, "%s.%s", kind, name);
    return am_tensor_table_add(&l->tensors, full, AM_DTYPE_F64, ndim, shape);
}

/* The name of a field's statistic. */
static void field_name(char name[NAME], const char *kind, int field)
{
    snprintf(name, NAME, "%s.%06d", kind, field);
}

static int add_pair(const am_net *net, const am_stats_options *options, am_stats_layout *l)
{
    char name[NAME];
    int rc = AM_OK;
    for (int f = 0; f < options->pair->n_fields; f++) {
        const int64_t n = options->pair->n[f];
        field_name(name, "cross", f);
        AM_KEEP(am_tensor_table_add(&l->tensors, name, AM_DTYPE_F64, 2, (const int64_t[]){n, n}));
        field_name(name, "own", f);
        AM_KEEP(am_tensor_table_add(&l->tensors, name, AM_DTYPE_F64, 2, (const int64_t[]){2, n}));
    }
    for (int i = 0; options->with_grams && i <= net->n; i++) {
        const product p = product_of(net, i);
        const int64_t J = 2 * p.terms + 1;
        AM_KEEP(p.terms == 0 ? AM_OK : add(l, "joint", p.name, 2, (const int64_t[]){J, J}));
    }
    AM_KEEP(am_tensor_table_finish(&l->tensors));
    return rc;
}

static int fill_table(const am_net *net, const am_stats_options *options, am_stats_layout *l)
{
    int rc = AM_OK;
    if (options->pair != NULL) {
        return add_pair(net, options, l);
    }
    for (int i = 0; i <= net->n; i++) {
        const product p = wanted_of(net, options, i);
        if (p.terms > 0) {
            AM_KEEP(add(l, "gram", p.name, 2, (const int64_t[]){p.terms, p.terms}));
            AM_KEEP(add(l, "mean", p.name, 1, &p.terms));
        }
    }
    for (int64_t k = 0; options->fisher != AM_FISHER_NONE && k < net->trunk.tensors.n; k++) {
        const am_tensor *t = &net->trunk.tensors.t[k];
        AM_KEEP(add(l, "fisher", t->name, t->ndim, t->shape));
    }
    if (rc == AM_OK && l->tensors.n == 0) {
        rc = am_fail(AM_E_RECIPE, "neither Fisher information nor Gram matrices are asked for");
    }
    AM_KEEP(am_tensor_table_finish(&l->tensors));
    return rc;
}

/* Offset of a statistic, -1 if there is none; a sample adds `rows` to it. */
static int64_t place(am_stats_layout *l, const char *kind, const char *name, int64_t rows)
{
    char full[NAME];
    snprintf(full, sizeof full, "%s.%s", kind, name);
    const int64_t at = am_tensor_table_find(&l->tensors, full);
    if (at >= 0) {
        l->rows[at] = rows;
    }
    return at >= 0 ? l->offset[at] : -1;
}

int am_stats_layout_make(const am_net *net, const am_stats_options *options, am_stats_layout *out)
{
    *out = (am_stats_layout){0};
    const int rc = fill_table(net, options, out);
    if (rc != AM_OK) {
        return rc;
    }
    const int64_t n = out->tensors.n, nodes = net->n + 1, trunk = net->trunk.tensors.n;
    out->offset = am_new(n, sizeof *out->offset, "statistics");
    out->rows = am_new(n, sizeof *out->rows, "statistics");
    out->fisher = am_new(trunk + 1, sizeof *out->fisher, "statistics");
    out->gram = am_new(nodes, sizeof *out->gram, "statistics");
    out->mean = am_new(nodes, sizeof *out->mean, "statistics");
    out->terms = am_new(nodes, sizeof *out->terms, "statistics");
    const int fields = options->pair != NULL ? options->pair->n_fields : 0;
    out->cross = am_new(fields + 1, sizeof *out->cross, "statistics");
    out->own = am_new(fields + 1, sizeof *out->own, "statistics");
    if (out->cross == NULL || out->own == NULL || out->offset == NULL || out->rows == NULL ||
        out->fisher == NULL || out->gram == NULL || out->mean == NULL || out->terms == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        out->offset[i] = out->n;
        out->n += out->tensors.t[i].numel;
    }
    for (int i = 0; i < nodes; i++) {
        const product p = product_of(net, i);
        out->terms[i] = p.terms;
        const char *kind = options->pair != NULL ? "joint" : "gram";
        out->gram[i] = p.terms > 0 ? place(out, kind, p.name, p.rows) : -1;
        out->mean[i] = p.terms > 0 ? place(out, "mean", p.name, p.rows) : -1;
    }
    for (int f = 0; f < fields; f++) {
        char name[NAME];
        field_name(name, "cross", f);
        out->cross[f] = out->offset[am_tensor_table_find(&out->tensors, name)];
        field_name(name, "own", f);
        out->own[f] = out->offset[am_tensor_table_find(&out->tensors, name)];
    }
    for (int64_t k = 0; k < trunk; k++) {
        out->fisher[k] = place(out, "fisher", net->trunk.tensors.t[k].name, 1);
    }
    return AM_OK;
}

void am_stats_layout_free(am_stats_layout *layout)
{
    am_tensor_table_free(&layout->tensors);
    free(layout->offset);
    free(layout->rows);
    free(layout->fisher);
    free(layout->gram);
    free(layout->mean);
    free(layout->terms);
    free(layout->cross);
    free(layout->own);
    *layout = (am_stats_layout){0};
}
