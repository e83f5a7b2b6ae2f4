/* From the layers of a network to its fields: see axes.h. Features of values are slots that layers
 * tie together; what is tied to each other is a family of values, and classes of tied slots are its
 * units. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/align/axes.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"

typedef struct builder {
    const am_net *net;
    int n_values;
    int64_t *first; /* [n_values + 1] slot of a value's first feature */
    int64_t *tied;  /* [slots] a slot of the same class with a lower number, or itself */
    int64_t *unit;  /* [slots] number of the class within its family */
    int *family;    /* [n_values] a value of the same family with a lower number, or itself */
    bool *is_kept;  /* [n_values] of families: the order stays */
    int64_t *units; /* [n_values] of families */
    int *node;      /* [n_values] of families: attention that takes or makes it; -1: none */
    bool *is_input; /* [n_values] of families: the attention takes it */
    int64_t *count; /* [slots] indices of a unit in a value */
} builder;

/* ---- ties ---- */

static int64_t features_of(const builder *b, int value)
{
    return b->first[value + 1] - b->first[value];
}

static int64_t slot_root(const builder *b, int64_t slot)
{
    while (b->tied[slot] != slot) {
        slot = b->tied[slot] = b->tied[b->tied[slot]];
    }
    return slot;
}

static int family_of(const builder *b, int value)
{
    while (b->family[value] != value) {
        value = b->family[value];
    }
    return value;
}

static void keep(builder *b, int value)
{
    b->is_kept[family_of(b, value)] = true;
}

static void join(builder *b, int v, int w)
{
    const int x = family_of(b, v), y = family_of(b, w);
    b->family[x > y ? x : y] = x < y ? x : y;
    b->is_kept[x] = b->is_kept[y] = b->is_kept[x] || b->is_kept[y];
}

static void tie(builder *b, int64_t s, int64_t t)
{
    const int64_t x = slot_root(b, s), y = slot_root(b, t);
    b->tied[x > y ? x : y] = x < y ? x : y;
}

/* Feature i of the longer value is feature i mod n of the other one. */
static void tie_cycled(builder *b, int v, int w)
{
    const int longer = features_of(b, v) >= features_of(b, w) ? v : w, other = longer == v ? w : v;
    const int64_t n = features_of(b, other);
    join(b, v, w);
    if (features_of(b, longer) % n != 0) {
        keep(b, v);
        return;
    }
    for (int64_t i = 0; i < features_of(b, longer); i++) {
        tie(b, b->first[longer] + i, b->first[other] + i % n);
    }
}

static void tie_node(builder *b, int i)
{
    const am_net_node *node = &b->net->node[i];
    const am_axes_rule rule = node->layer->axes.rule;
    for (int k = 0; k < node->layer->inputs; k++) {
        const int in = node->in[k], out = i + 1;
        if (rule == AM_AXES_KEPT) {
            keep(b, in);
            keep(b, out);
        } else if (rule == AM_AXES_SAME || rule == AM_AXES_CYCLED || rule == AM_AXES_HALVES) {
            tie_cycled(b, in, out);
        }
    }
}

/* ---- units ---- */

/* Number the classes of every family by their first slot; each must have as many indices as the
 * others in every value, or there is nothing to exchange. count: all 0 before and after. */
static void number_units(builder *b)
{
    for (int v = 0; v < b->n_values; v++) {
        const int f = family_of(b, v);
        for (int64_t s = b->first[v]; s < b->first[v + 1]; s++) {
            const int64_t root = slot_root(b, s);
            b->unit[s] = root == s ? b->units[f]++ : b->unit[root];
        }
    }
    for (int v = 0; v < b->n_values; v++) {
        const int64_t n = b->units[family_of(b, v)], F = features_of(b, v);
        for (int64_t s = b->first[v]; s < b->first[v + 1]; s++) {
            b->count[b->unit[s]]++;
        }
        for (int64_t s = b->first[v]; s < b->first[v + 1]; s++) {
            if (b->count[b->unit[s]] * n != F) {
                keep(b, v);
            }
        }
        for (int64_t s = b->first[v]; s < b->first[v + 1]; s++) {
            b->count[b->unit[s]] = 0;
        }
    }
}

/* A family's order is that of heads only if each of its units is one feature there, and of one
 * attention. */
static void number_heads(builder *b, int value, int node, bool is_input)
{
    const int f = family_of(b, value);
    if (b->units[f] != features_of(b, value) || b->node[f] >= 0) {
        keep(b, value);
        return;
    }
    b->node[f] = node;
    b->is_input[f] = is_input;
    for (int64_t s = b->first[value]; s < b->first[value + 1]; s++) {
        b->count[b->unit[s]] = s - b->first[value];
    }
    for (int v = 0; v < b->n_values; v++) {
        for (int64_t s = b->first[v]; family_of(b, v) == f && s < b->first[v + 1]; s++) {
            b->unit[s] = b->count[b->unit[s]];
        }
    }
    memset(b->count, 0, (size_t)b->units[f] * sizeof *b->count);
}

/* What attention takes and what it makes move together, or not at all. */
static void bind_heads(builder *b)
{
    for (int i = 0; i < b->net->n; i++) {
        if (b->net->node[i].layer->axes.rule == AM_AXES_HEADS) {
            number_heads(b, b->net->node[i].in[0], i, true);
            number_heads(b, i + 1, i, false);
        }
    }
    for (bool is_new = true;
         is_new;) { /* a family that is kept keeps the other, which may be ... */
        is_new = false;
        for (int i = 0; i < b->net->n; i++) {
            if (b->net->node[i].layer->axes.rule == AM_AXES_HEADS) {
                const int in = family_of(b, b->net->node[i].in[0]), out = family_of(b, i + 1);
                is_new = is_new || b->is_kept[in] != b->is_kept[out];
                b->is_kept[in] = b->is_kept[out] = b->is_kept[in] || b->is_kept[out];
            }
        }
    }
}

/* ---- fields ---- */

/* cell[n,m]: features of `value` that are units [lo, lo + n) of its family; fill: [n]. */
static void fill_cells(const builder *b, int64_t n, int64_t m, int64_t lo, int value, int64_t *cell,
                       int64_t *fill)
{
    memset(fill, 0, (size_t)n * sizeof *fill);
    for (int64_t i = 0; i < features_of(b, value); i++) {
        const int64_t u = b->unit[b->first[value] + i] - lo;
        if (u >= 0 && u < n) {
            cell[u * m + fill[u]++] = i;
        }
    }
}

/* Units [lo, lo + n) of the family of `value`, along axis dim of a tensor. */
static int add_use(const builder *b, am_align_field *field, int64_t lo, int value, int tensor,
                   int dim, int64_t *fill)
{
    const int64_t F = features_of(b, value), units = b->units[family_of(b, value)];
    if (field->n_uses == field->capacity) {
        const int capacity = field->capacity == 0 ? 8 : 2 * field->capacity;
        am_align_use *use = am_new(capacity, sizeof *use, "uses of features");
        if (use == NULL) {
            return AM_E_NOMEM;
        }
        for (int i = 0; i < field->n_uses; i++) {
            use[i] = field->use[i];
        }
        free(field->use);
        field->use = use;
        field->capacity = capacity;
    }
    am_align_use *use = &field->use[field->n_uses++];
    *use = (am_align_use){.tensor = tensor, .dim = dim, .m = F / units};
    use->cell = am_new(field->n * use->m, sizeof *use->cell, "uses of features");
    if (use->cell == NULL) {
        return AM_E_NOMEM;
    }
    fill_cells(b, field->n, use->m, lo, value, use->cell, fill);
    return 0;
}

/* The layers that read units [lo, lo + n) of a family; each value once. */
static int add_reads(const builder *b, int f, int64_t lo, am_align_field *field)
{
    const am_net *net = b->net;
    field->read = am_new(net->n + 1, sizeof *field->read, "readers of features");
    if (field->read == NULL) {
        return AM_E_NOMEM;
    }
    for (int i = 0; i <= net->n; i++) {
        const am_layer *layer = i < net->n ? net->node[i].layer : NULL;
        const int value = layer != NULL ? net->node[i].in[0] : net->n;
        const bool reads =
            layer == NULL || layer->product_terms != NULL || layer->axes.rule == AM_AXES_HEADS;
        bool is_new = reads && family_of(b, value) == f;
        for (int r = 0; is_new && r < field->n_reads; r++) {
            const int last = field->read[r].node;
            is_new = value != (last < net->n ? net->node[last].in[0] : net->n);
        }
        if (is_new) {
            am_align_read *read = &field->read[field->n_reads++];
            *read = (am_align_read){.node = i, .m = features_of(b, value) / b->units[f]};
            read->cell = am_new(field->n * read->m, sizeof *read->cell, "readers of features");
            if (read->cell == NULL) {
                return AM_E_NOMEM;
            }
            fill_cells(b, field->n, read->m, lo, value, read->cell, b->count);
        }
    }
    return 0;
}

/* All axes along which units [lo, lo + n) of a family lie. */
static int add_uses(const builder *b, const am_align *a, int f, int64_t lo, am_align_field *field)
{
    int rc = 0;
    for (int i = 0; i < b->net->n; i++) {
        const am_net_node *node = &b->net->node[i];
        for (int k = 0; k < node->n_params; k++) {
            const am_align_tensor *t = &a->tensor[node->tensor[k]];
            for (int d = 0; d < t->ndim; d++) {
                const unsigned char axis = node->layer->axes.param[k][d];
                const int value = axis == AM_AXIS_IN ? node->in[0] : i + 1;
                if (axis != AM_AXIS_FIXED && family_of(b, value) == f) {
                    AM_ASSERT(t->shape[d] == features_of(b, value));
                    AM_KEEP(add_use(b, field, lo, value, node->tensor[k], d, b->count));
                }
            }
        }
    }
    for (int t = (int)b->net->trunk.tensors.n; t < a->n_tensors; t++) {
        if (a->tensor[t].ndim == 2 && family_of(b, b->net->n) == f) {
            AM_KEEP(add_use(b, field, lo, b->net->n, t, 1, b->count));
        }
    }
    return rc;
}

static int add_field(const builder *b, am_align *a, int f, int64_t lo, int64_t n,
                     am_align_group *group)
{
    am_align_field *field = &a->field[a->n_fields];
    group->field[group->n_fields++] = a->n_fields++;
    *field = (am_align_field){.n = n};
    field->order = am_new(n, sizeof *field->order, "order of features");
    if (field->order == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        field->order[i] = i;
    }
    int rc = add_uses(b, a, f, lo, field);
    AM_KEEP(add_reads(b, f, lo, field));
    return rc;
}

static int add_attention(const builder *b, am_align *a, int i)
{
    const am_net_node *node = &b->net->node[i];
    am_align_group *group = &a->group[a->n_groups++];
    *group = (am_align_group){.name = node->name, .is_attention = true};
    node->layer->heads(&node->site, &group->heads);
    const am_layer_heads *h = &group->heads;
    const int in = family_of(b, node->in[0]), out = family_of(b, i + 1);
    int rc = add_field(b, a, in, 0, h->H * h->D, group);
    AM_KEEP(add_field(b, a, in, h->H * h->D, h->G * h->D, group));
    AM_KEEP(add_field(b, a, in, (h->H + h->G) * h->D, h->G * h->D, group));
    AM_KEEP(add_field(b, a, out, 0, h->H * h->D, group));
    return rc;
}

/* The groups in the order of the nodes that make them. */
static int add_groups(const builder *b, am_align *a)
{
    int rc = 0;
    for (int v = 1; rc == 0 && v < b->n_values; v++) {
        if (b->family[v] != v || b->is_kept[v] || (b->node[v] < 0 && b->units[v] < 2)) {
            continue;
        }
        if (b->node[v] < 0) {
            am_align_group *group = &a->group[a->n_groups++];
            *group = (am_align_group){.name = b->net->node[v - 1].name};
            rc = add_field(b, a, v, 0, b->units[v], group);
        } else if (b->is_input[v]) {
            rc = add_attention(b, a, b->node[v]);
        }
    }
    return rc;
}

/* What statistics of two such networks look at. */
static int list_reads(am_align *a)
{
    int reads = 0;
    for (int f = 0; f < a->n_fields; f++) {
        reads += a->field[f].n_reads;
    }
    int64_t *n = am_new(a->n_fields + 1, sizeof *n, "readers of features");
    am_stats_view *read = am_new(reads + 1, sizeof *read, "readers of features");
    a->pair = (am_stats_pair){.n_fields = a->n_fields, .n = n, .read = read};
    if (n == NULL || read == NULL) {
        return AM_E_NOMEM;
    }
    for (int f = 0; f < a->n_fields; f++) {
        const am_align_field *field = &a->field[f];
        n[f] = field->n;
        for (int k = 0; k < field->n_reads; k++) {
            const am_align_read *from = &field->read[k];
            read[a->pair.n_reads++] =
                (am_stats_view){.field = f, .node = from->node, .m = from->m, .cell = from->cell};
        }
    }
    return 0;
}

/* ---- tensors ---- */

static void add_tensor(am_align *a, const am_tensor *t, bool counts)
{
    am_align_tensor *out = &a->tensor[a->n_tensors++];
    *out = (am_align_tensor){
        .name = t->name, .ndim = t->ndim, .numel = t->numel, .offset = a->n, .counts = counts};
    memcpy(out->shape, t->shape, (size_t)t->ndim * sizeof *t->shape);
    a->n += t->numel;
}

static int list_tensors(const am_net *net, const am_tensor_table *heads, bool heads_count,
                        am_align *a)
{
    const am_tensor_table *trunk = &net->trunk.tensors;
    const int64_t n = trunk->n + (heads != NULL ? heads->n : 0);
    a->tensor = am_new(n + 1, sizeof *a->tensor, "alignment");
    if (a->tensor == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < trunk->n; i++) {
        add_tensor(a, &trunk->t[i], net->trunk.rate[i] == 0);
    }
    for (int64_t i = 0; heads != NULL && i < heads->n; i++) {
        add_tensor(a, &heads->t[i], heads_count);
    }
    return 0;
}

/* ---- all ---- */

static int builder_make(const am_net *net, builder *b)
{
    *b = (builder){.net = net, .n_values = net->n + 1};
    b->first = am_new(b->n_values + 1, sizeof *b->first, "alignment");
    b->family = am_new(b->n_values, sizeof *b->family, "alignment");
    b->is_kept = am_new(b->n_values, sizeof *b->is_kept, "alignment");
    b->units = am_new(b->n_values, sizeof *b->units, "alignment");
    b->node = am_new(b->n_values, sizeof *b->node, "alignment");
    b->is_input = am_new(b->n_values, sizeof *b->is_input, "alignment");
    if (!b->first || !b->family || !b->is_kept || !b->units || !b->node || !b->is_input) {
        return AM_E_NOMEM;
    }
    for (int v = 0; v < b->n_values; v++) { /* the samples' features: as its first user sees them */
        int64_t F = v > 0 ? am_shape_features(&net->node[v - 1].site.out) : 0;
        for (int i = net->n - 1; v == 0 && i >= 0; i--) {
            for (int k = net->node[i].layer->inputs - 1; k >= 0; k--) {
                F = net->node[i].in[k] == 0 ? am_shape_features(&net->node[i].site.in[k]) : F;
            }
        }
        b->first[v + 1] = b->first[v] + F;
        b->family[v] = v;
        b->node[v] = -1;
    }
    const int64_t slots = b->first[b->n_values];
    b->tied = am_new(slots, sizeof *b->tied, "alignment");
    b->unit = am_new(slots, sizeof *b->unit, "alignment");
    b->count = am_new(slots, sizeof *b->count, "alignment");
    for (int64_t s = 0; b->tied != NULL && s < slots; s++) {
        b->tied[s] = s;
    }
    return b->tied != NULL && b->unit != NULL && b->count != NULL ? 0 : AM_E_NOMEM;
}

static void builder_free(builder *b)
{
    free(b->first);
    free(b->tied);
    free(b->unit);
    free(b->family);
    free(b->is_kept);
    free(b->units);
    free(b->node);
    free(b->is_input);
    free(b->count);
}

int am_align_find(const am_net *net, const am_tensor_table *heads, bool heads_count, am_align *out)
{
    builder b;
    *out = (am_align){0};
    int rc = builder_make(net, &b);
    AM_KEEP(list_tensors(net, heads, heads_count, out));
    if (rc == 0) {
        out->group = am_new(b.n_values, sizeof *out->group, "alignment");
        out->field = am_new((int64_t)b.n_values * AM_ALIGN_FIELDS, sizeof *out->field, "alignment");
        rc = out->group != NULL && out->field != NULL ? 0 : AM_E_NOMEM;
    }
    if (rc == 0) {
        keep(&b, AM_NET_SAMPLES);
        for (int i = 0; i < net->n; i++) {
            tie_node(&b, i);
        }
        if (heads == NULL) {
            keep(&b, net->n);
        }
        number_units(&b);
        bind_heads(&b);
        rc = add_groups(&b, out);
        AM_KEEP(list_reads(out));
    }
    builder_free(&b);
    return rc;
}

void am_align_free(am_align *align)
{
    for (int f = 0; f < align->n_fields; f++) {
        for (int k = 0; k < align->field[f].n_uses; k++) {
            free(align->field[f].use[k].cell);
        }
        for (int k = 0; k < align->field[f].n_reads; k++) {
            free(align->field[f].read[k].cell);
        }
        free(align->field[f].read);
        free(align->field[f].use);
        free(align->field[f].order);
    }
    free((void *)align->pair.n);
    free((void *)align->pair.read);
    free(align->tensor);
    free(align->field);
    free(align->group);
    *align = (am_align){0};
}

void am_align_index(const am_align *align, int tensor, int dim, int64_t *index)
{
    for (int64_t i = 0; i < align->tensor[tensor].shape[dim]; i++) {
        index[i] = i;
    }
    for (int f = 0; f < align->n_fields; f++) {
        const am_align_field *field = &align->field[f];
        for (int k = 0; k < field->n_uses; k++) {
            const am_align_use *use = &field->use[k];
            for (int64_t i = 0; use->tensor == tensor && use->dim == dim && i < field->n * use->m;
                 i++) {
                index[use->cell[i]] = use->cell[field->order[i / use->m] * use->m + i % use->m];
            }
        }
    }
}
