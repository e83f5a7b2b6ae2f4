/* Statistics of a network on samples, as other methods of merging need them: for every product with
 * a weight the second moment and the mean of its inputs, for every tensor the diagonal of the
 * Fisher information. What is made is sums over samples, f64 in both precisions; the layout says
 * where each lies and by what it is divided.
 *
 *   gram.LAYER [C,C]   sum over rows of x x^T, C terms of a product: inputs of `linear`, windows
 *   mean.LAYER [C]     sum over rows of x            [channels,k,k] of `conv2d`
 *   fisher.TENSOR      sum over samples of (d log p / d theta)^2, log p of all labels of a sample
 *
 * Layer "head" is what the heads get. Of a pair of networks of one shape, on the same samples, x of
 * the one and y of the other:
 *
 *   cross.FIELD [n,n]        sum over rows of x y^T, n units of a value that layers read
 *   own.FIELD [2,n]          sum over rows of x^2, and of y^2
 *   joint.LAYER [J,J]        sum over rows of u u^T, u = (x, y, 1), x and y as in gram: J = 2 C + 1
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_STATS_H
#define AM_SOLVER_TRAINING_STATS_H

#include "solver/training/net.h"

/* Labels of the likelihood: those of the samples; each class weighted by its probability; one drawn
 * from the model's distribution for every label that counts. */
typedef enum am_stats_fisher {
    AM_FISHER_EMPIRICAL,
    AM_FISHER_EXACT,
    AM_FISHER_SAMPLED,
    AM_FISHER_NONE
} am_stats_fisher;

/* What node `node` of a network (net->n: the heads) reads: units of a field. */
typedef struct am_stats_view {
    int field, node;
    int64_t m;           /* features of a unit, each a row of its own */
    const int64_t *cell; /* [n,m] borrowed: which they are */
} am_stats_view;

/* Statistics of two networks: fields [n_fields] of n units each. All borrowed. */
typedef struct am_stats_pair {
    int n_fields, n_reads;
    const int64_t *n;
    const am_stats_view *read; /* [n_reads] */
} am_stats_pair;

typedef struct am_stats_options {
    am_stats_fisher fisher;
    bool with_grams; /* and means; of a pair: joint ones */
    /* Of the nodes [first, last) alone, without the head; last 0: of all. Not of a pair. */
    int first, last;
    uint64_t seed;             /* of AM_FISHER_SAMPLED */
    const am_stats_pair *pair; /* NULL: of one network; with AM_FISHER_NONE */
} am_stats_options;

typedef struct am_stats_layout {
    am_tensor_table tensors;      /* owned; f64, in name order */
    int64_t *offset;              /* [tensors.n] owned; reals from the start of the sums */
    int64_t *rows;                /* [tensors.n] owned; that a sample adds: the divisor */
    int64_t n;                    /* reals of all sums */
    int64_t *fisher;              /* [trunk tensors] owned: offset, -1: none */
    int64_t *gram, *mean, *terms; /* [net->n + 1] owned: of each node, then of the head;
                                     offsets, -1: none */
    int64_t *cross, *own;         /* [pair->n_fields] owned: offsets */
} am_stats_layout;

/** Lay out the statistics of a shaped network. Local. out: freed by am_stats_layout_free, also
 * after an error. Errors: AM_E_RECIPE (nothing is asked for, a name twice), AM_E_NOMEM. */
int am_stats_layout_make(const am_net *net, const am_stats_options *options, am_stats_layout *out);
void am_stats_layout_free(am_stats_layout *layout); /* accepts a zeroed one */

/* Samples [lo, hi) of a task. All borrowed; net as the layout was made for, its smoothing counts.
 */
typedef struct am_stats_leaf {
    const am_net *net;
    const am_stats_layout *layout;
    const am_stats_options *options;
    const void *trunk, *head;
    const void *other; /* trunk of a pair */
    int64_t classes;
    const am_samples *samples;
    int64_t lo, hi;
    int64_t ahead_lo, ahead_hi; /* samples that this rank needs next: may be read meanwhile */
} am_stats_leaf;

#endif
