/* Which features of a network may be put into another order without changing what it computes.
 *
 * Every value of a network has features; layers say which of them go together
 * (training/layer.h). Features that go together are one unit; units that may change places are a
 * field. A field lies along axes of tensors (uses): a unit of it is one index of an axis, or
 * several where a value is seen again and again (a flattened image). Samples, what a layer takes in
 * one order only, and the values that go with them keep their order.
 *
 *   MLP       x ── W0 [field 0, x] ── W1 [field 1, field 0] ── head [classes, field 1]
 *
 * Heads of attention are four fields, queries, keys, values and outputs, that move together:
 * groups of heads as wholes, query heads inside a group, the features of queries and keys of a
 * group (not with rotary positions), the features of values and outputs of a group.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ALIGN_AXES_H
#define AM_SOLVER_ALIGN_AXES_H

#include "solver/training/stats.h"

/* A tensor of the trunk or of the heads. */
typedef struct am_align_tensor {
    const char *name; /* borrowed of the tables */
    int ndim;
    int64_t shape[AM_LAYER_PARAM_DIMS], numel;
    int64_t offset; /* in a block of all */
    bool counts;    /* decides on the order; statistics only follow it */
} am_align_tensor;

typedef struct am_align_use {
    int tensor, dim;
    int64_t m;     /* indices of a unit */
    int64_t *cell; /* [n,m] owned: along the axis */
} am_align_use;

/* A layer that reads the units: a product, attention, or (node net->n) the heads. */
typedef struct am_align_read {
    int node;
    int64_t m;
    int64_t *cell; /* [n,m] owned: among the features of what it reads */
} am_align_read;

typedef struct am_align_field {
    int64_t n; /* units */
    int n_uses, capacity;
    am_align_use *use; /* [n_uses] owned */
    int n_reads;
    am_align_read *read; /* [n_reads] owned: one of each value that is read */
    int64_t *order;      /* [n] owned: unit i is what was unit order[i] */
} am_align_field;

enum { AM_ALIGN_Q, AM_ALIGN_K, AM_ALIGN_V, AM_ALIGN_O, AM_ALIGN_FIELDS };

typedef struct am_align_group {
    const char *name; /* borrowed: of the node that makes its value, of the attention */
    bool is_attention;
    am_layer_heads heads; /* of attention */
    int n_fields;         /* 1, or AM_ALIGN_FIELDS */
    int field[AM_ALIGN_FIELDS];
} am_align_group;

typedef struct am_align {
    int n_tensors, n_fields, n_groups;
    am_align_tensor *tensor; /* [n_tensors] owned: those of the trunk, then those of the heads */
    am_align_field *field;   /* [n_fields] owned */
    am_align_group *group;   /* [n_groups] owned, in the order of the nodes */
    int64_t n;               /* elements of all tensors */
    am_stats_pair pair;      /* its arrays owned: the readers of all fields */
} am_align;

/** Find the groups of a shaped network.
 *
 * Local, pure. net, heads borrowed while `out` lives.
 * heads  matrices [K, features of net->out], which move with the last value, and biases [K], which
 *        stay; NULL: the last value keeps its order, so that any head still fits
 * heads_count  the heads decide on the order, too; else they only follow
 * out    overwritten; orders are those of now; freed by the caller, also after an error
 * Errors: AM_E_NOMEM. */
int am_align_find(const am_net *net, const am_tensor_table *heads, bool heads_count, am_align *out);
void am_align_free(am_align *align); /* accepts a zeroed one */

/** index[shape[dim]]: where along axis `dim` of a tensor the elements come from, by the orders. */
void am_align_index(const am_align *align, int tensor, int dim, int64_t *index);

#endif
