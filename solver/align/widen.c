/* A network that holds the units of two: see widen.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/align/widen.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"

int64_t am_widen_units(int64_t n, double budget)
{
    const int64_t units = (int64_t)llround(budget * (double)n);
    return units < n ? n : units > 2 * n ? 2 * n : units;
}

/* ---- the network ---- */

/* The node whose parameter a use lies along, and which of its parameters; -1: the heads. */
static int node_of(const am_net *net, int tensor, int *param)
{
    for (int i = 0; i < net->n; i++) {
        for (int k = 0; k < net->node[i].n_params; k++) {
            if (net->node[i].tensor[k] == tensor) {
                *param = k;
                return i;
            }
        }
    }
    return -1;
}

static bool has_width(const am_layer *layer)
{
    return layer->axes.rule == AM_AXES_NEW && am_param_find(layer->attrs, "out") >= 0;
}

/* Whether what node `maker` gives reaches, as it is, a layer that has the number of its units as an
 * attribute: an image of so many channels. reached [net->n + 1]: work. */
static bool is_counted(const am_net *net, int maker, bool *reached)
{
    bool is = false;
    memset(reached, 0, (size_t)(net->n + 1) * sizeof *reached);
    reached[maker + 1] = true;
    for (int i = maker + 1; !is && i < net->n; i++) {
        const am_layer *layer = net->node[i].layer;
        const am_axes_rule rule = layer->axes.rule;
        const bool passes =
            rule == AM_AXES_SAME || rule == AM_AXES_CYCLED || rule == AM_AXES_HALVES;
        for (int k = 0; passes && k < layer->inputs; k++) {
            reached[i + 1] = reached[i + 1] || reached[net->node[i].in[k]];
        }
        is = reached[i + 1] && layer->attrs != NULL && am_param_find(layer->attrs, "channels") >= 0;
    }
    return is;
}

static bool can_grow(const am_net *net, const am_align *align, const am_align_group *group,
                     bool *reached)
{
    const am_align_field *field = &align->field[group->field[0]];
    bool can = !group->is_attention;
    for (int k = 0; can && k < field->n_uses; k++) {
        int param = 0;
        const int i = node_of(net, field->use[k].tensor, &param);
        if (i >= 0 && net->node[i].layer->axes.param[param][field->use[k].dim] == AM_AXIS_OUT) {
            const am_layer *layer = net->node[i].layer;
            can = !layer->axes.mixes && (layer->axes.rule != AM_AXES_NEW || has_width(layer)) &&
                  !is_counted(net, i, reached);
        }
    }
    return can;
}

/* Set `out` of the layers that make the field. */
static int grow(const am_net *net, const am_align_field *field, int64_t units, am_net *wide)
{
    int rc = 0;
    for (int k = 0; rc == 0 && k < field->n_uses; k++) {
        const am_align_use *use = &field->use[k];
        int param = 0;
        const int i = node_of(net, use->tensor, &param);
        if (i >= 0 && param == 0 && use->dim == 0 && has_width(net->node[i].layer) &&
            net->node[i].layer->axes.param[0][0] == AM_AXIS_OUT) {
            char text[32];
            snprintf(text, sizeof text, "%" PRId64, units * use->m);
            rc = am_param_set(net->node[i].layer->attrs, wide->node[i].attrs, "out", text,
                              net->node[i].name);
        }
    }
    return rc;
}

static int make_field(const am_align_field *field, int64_t n, am_widen_field *out)
{
    *out = (am_widen_field){.n = n, .pairs = 2 * field->n - n};
    out->one = am_new(n, sizeof *out->one, "units");
    out->two = am_new(n, sizeof *out->two, "units");
    return out->one == NULL || out->two == NULL ? AM_E_NOMEM : 0;
}

/* The wide network has the same fields, each with as many units as are to lie there. */
static int check_fields(const am_widen *w)
{
    const am_align *from = w->from, *wide = &w->align;
    bool is_right = wide->n_fields == from->n_fields;
    for (int f = 0; is_right && f < from->n_fields; f++) {
        is_right = wide->field[f].n == w->field[f].n &&
                   wide->field[f].n_uses == from->field[f].n_uses &&
                   wide->field[f].n_reads == from->field[f].n_reads;
    }
    return is_right ? 0
                    : am_fail(AM_E_RECIPE,
                              "this network cannot be made wider: with more units its layers go "
                              "together in another way; take a budget of 1");
}

int am_widen_make(const am_net *narrow, const am_align *align, double budget, am_widen *out)
{
    static const am_tensor_table no_heads = {0};
    *out = (am_widen){.narrow = narrow, .from = align};
    out->field = am_new(align->n_fields + 1, sizeof *out->field, "units");
    bool *reached = am_new(narrow->n + 1, sizeof *reached, "units");
    int rc = out->field == NULL || reached == NULL ? AM_E_NOMEM : am_net_copy(narrow, &out->net);
    for (int g = 0; rc == 0 && g < align->n_groups; g++) {
        const am_align_group *group = &align->group[g];
        const bool can = can_grow(narrow, align, group, reached);
        out->n_grown += can;
        for (int k = 0; rc == 0 && k < group->n_fields; k++) {
            const am_align_field *field = &align->field[group->field[k]];
            const int64_t n = can ? am_widen_units(field->n, budget) : field->n;
            rc = make_field(field, n, &out->field[group->field[k]]);
            AM_KEEP(can ? grow(narrow, field, n, &out->net) : 0);
        }
    }
    AM_KEEP(rc != 0 ? rc : am_net_shape(&out->net, narrow->features));
    AM_KEEP(rc != 0 ? rc : am_net_trunk_layout(&out->net, AM_DTYPE_F64, &out->trunk));
    AM_KEEP(rc != 0 ? rc : am_align_find(&out->net, &no_heads, false, &out->align));
    AM_KEEP(check_fields(out));
    free(reached);
    return rc;
}

void am_widen_free(am_widen *widen)
{
    for (int f = 0; widen->field != NULL && f < widen->from->n_fields; f++) {
        free(widen->field[f].one);
        free(widen->field[f].two);
    }
    free(widen->field);
    am_align_free(&widen->align);
    am_param_layout_free(&widen->trunk);
    am_net_free(&widen->net);
    *widen = (am_widen){0};
}

/* ---- pairs ---- */

typedef struct pair {
    double distance;
    int64_t unit;
} pair;

static int nearest_first(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    return x->distance != y->distance ? (x->distance > y->distance) - (x->distance < y->distance)
                                      : (x->unit > y->unit) - (x->unit < y->unit);
}

static int pair_field(const am_align_field *from, const double *cross, const double *own,
                      am_widen_field *field)
{
    const int64_t n = from->n;
    pair *all = am_new(n, sizeof *all, "units");
    bool *is_pair = am_new(n, sizeof *is_pair, "units");
    int rc = all == NULL || is_pair == NULL ? AM_E_NOMEM : 0;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        const int64_t j = from->order[i];
        all[i] = (pair){own[i] - 2 * cross[i * n + j] + own[n + j], i};
    }
    if (rc == 0) {
        qsort(all, (size_t)n, sizeof *all, nearest_first);
    }
    for (int64_t i = 0; rc == 0 && i < field->pairs; i++) {
        is_pair[all[i].unit] = true;
    }
    int64_t at = 0, alone = field->pairs;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        if (is_pair[i]) {
            field->one[at] = i;
            field->two[at++] = from->order[i];
        } else {
            field->one[alone] = i;
            field->two[alone] = -1;
            field->one[alone + n - field->pairs] = -1;
            field->two[alone++ + n - field->pairs] = from->order[i];
        }
    }
    free(all);
    free(is_pair);
    return rc;
}

int am_widen_pair(am_widen *widen, const double *const *cross, const double *const *own)
{
    int rc = 0;
    for (int f = 0; rc == 0 && f < widen->from->n_fields; f++) {
        rc = pair_field(&widen->from->field[f], cross[f], own[f], &widen->field[f]);
    }
    return rc;
}

/* ---- axes ---- */

static void map_cells(const am_widen_field *field, int64_t m, const int64_t *wide,
                      const int64_t *narrow, int64_t *one, int64_t *two)
{
    for (int64_t i = 0; i < field->n * m; i++) {
        const int64_t a = field->one[i / m], b = field->two[i / m], j = i % m;
        one[wide[i]] = a >= 0 ? narrow[a * m + j] : -1;
        two[wide[i]] = b >= 0 ? narrow[b * m + j] : -1;
    }
}

void am_widen_axis(const am_widen *widen, int tensor, int dim, int64_t *one, int64_t *two)
{
    const int64_t n = widen->align.tensor[tensor].shape[dim];
    for (int64_t i = 0; i < n; i++) {
        one[i] = two[i] = i;
    }
    for (int f = 0; f < widen->from->n_fields; f++) {
        const am_align_field *from = &widen->from->field[f];
        for (int k = 0; k < from->n_uses; k++) {
            const am_align_use *use = &from->use[k], *wide = &widen->align.field[f].use[k];
            if (use->tensor == tensor && use->dim == dim) {
                map_cells(&widen->field[f], use->m, wide->cell, use->cell, one, two);
            }
        }
    }
}

void am_widen_head_axis(const am_widen *widen, int64_t *one, int64_t *two)
{
    const int head = widen->narrow->n;
    for (int64_t i = 0; i < am_shape_features(&widen->net.out); i++) {
        one[i] = two[i] = i;
    }
    for (int f = 0; f < widen->from->n_fields; f++) {
        const am_align_field *from = &widen->from->field[f];
        for (int k = 0; k < from->n_reads; k++) {
            const am_align_read *read = &from->read[k], *wide = &widen->align.field[f].read[k];
            if (read->node == head) {
                map_cells(&widen->field[f], read->m, wide->cell, read->cell, one, two);
            }
        }
    }
}
