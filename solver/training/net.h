/* Networks: a list of nodes in topological order, each a layer with attributes and inputs. Shapes,
 * names and offsets only; parameters live in one contiguous block of reals that the caller owns, a
 * shared trunk (this list) and one linear head per task. The arithmetic is compiled for f32 and f64
 * from one source and reached through am_train_ops.
 *
 *     am_net net = {0};
 *     int v = am_net_add(&net, "layers.0", "linear", AM_NET_SAMPLES, "out=512 activation=relu");
 *     v = am_net_add(&net, "layers.1", "linear", v, "out=256 activation=relu");
 *     AM_TRY(am_net_shape(&net, 784));
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_NET_H
#define AM_SOLVER_TRAINING_NET_H

#include <mpi.h>
#include "mpi/block.h"
#include "solver/training/layer.h"

enum { AM_NET_NAME = 64, AM_NET_MAX_NODES = 4096, AM_NET_SAMPLES = 0 };

/* A value is a number: AM_NET_SAMPLES, or i + 1 for the output of node i. */
typedef struct am_net_node {
    const am_layer *layer; /* of the f32 table: names, shapes, parameters */
    int index;             /* in the layer tables */
    char name[AM_NET_NAME];
    int in[AM_LAYER_INPUTS]; /* values, lower than the node's own; 0 past layer->inputs */
    bool is_cut;             /* activation checkpointing may start a segment here */
    bool is_adapter; /* of a network with some, all tensors but theirs are frozen (lora.h) */
    _Alignas(16) unsigned char attrs[AM_LAYER_ATTR_BYTES];
    /* From here by am_net_shape. */
    am_layer_site site;
    int n_params;
    int tensor[AM_LAYER_PARAMS];       /* in the trunk layout */
    int64_t offset[AM_LAYER_PARAMS];   /* in the trunk block */
    int64_t gradient[AM_LAYER_PARAMS]; /* in its gradient; -1: frozen */
    bool has_fixed_statistics;         /* frozen ones: the layer always works as in evaluation */
} am_net_node;

/* Where the tensors of a parameter block lie. */
typedef struct am_param_layout {
    am_tensor_table tensors; /* owned; dtype F32 or F64; sorted by name */
    int64_t *offset;         /* [tensors.n] owned; elements from the start of the block */
    int64_t *home, *number;  /* [tensors.n] owned; offset and number of each in the whole layout
                                that this one is a part of, or in this one */
    double *fill, *sigma;    /* [tensors.n] owned; initial value: fill + sigma * normal */
    double *spread;          /* [tensors.n] owned; + spread * uniform in (-1, 1) */
    double *rate;            /* [tensors.n] owned; of a running statistic, else 0 */
    bool *is_frozen;         /* [tensors.n] owned */
    int64_t n;               /* reals in the block */
} am_param_layout;
void am_param_layout_free(am_param_layout *layout); /* accepts a zeroed one */
/** Does the optimiser move tensor k: neither frozen nor a running statistic. Pure. */
bool am_param_is_trained(const am_param_layout *layout, int64_t k);
/** The tensors of a whole layout that are not frozen, end to end: what gradients, optimisers and
 * saved runs hold. Errors: AM_E_NOMEM. */
int am_param_layout_part(const am_param_layout *whole, am_param_layout *out);

typedef struct am_net {
    int n;
    am_net_node *node; /* [n] owned */
    int capacity;
    bool cut_next;    /* the next node gets is_cut */
    int error;        /* first error of am_net_add, reported by am_net_shape */
    double smoothing; /* of labels, [0,1) */
    /* Not NULL: a trunk of the type in use, borrowed; the network is its linearisation there,
     * f(anchor) + J (trunk - anchor), in training and evaluation (tangent space). */
    const void *anchor;
    bool recompute; /* activation checkpointing: segments are computed again for backward */
    char **freeze;  /* [n_freeze] owned patterns of tensor names, * and ? */
    int n_freeze;
    /* From here by am_net_shape. */
    int64_t features;      /* of a sample: reals or token ids */
    bool takes_ids;        /* the samples are token ids */
    int64_t vocabulary;    /* these are below it */
    am_shape out;          /* what a head gets: rows of features */
    am_param_layout trunk; /* dtype F32; offsets are the same in f64 */
    int64_t gradient_n;    /* reals of a gradient of the trunk: its tensors that are not frozen */
} am_net;

/** Append a node.
 *
 * in      value that it takes; am_net_add2: two of them
 * format  attributes as "key=value key=value", "" for defaults
 *
 * Returns the value that it makes; after an error (unknown layer or attribute, AM_E_NOMEM) the
 * first one is kept in net->error. */
int am_net_add(am_net *net, const char *name, const char *layer, int in, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
int am_net_add2(am_net *net, const char *name, const char *layer, int in0, int in1,
                const char *format, ...) __attribute__((format(printf, 6, 7)));
/** The same with attributes that are set already: AM_LAYER_ATTR_BYTES with the layer's struct.
 * Returns an error code. */
int am_net_add_node(am_net *net, const char *name, int layer, const int *in, const void *attrs);
/** The next node may start a segment of activation checkpointing: the boundary of a block. */
void am_net_cut(am_net *net);
/** Freeze tensors whose name matches `pattern` (* and ?). Before am_net_shape. Errors: AM_E_NOMEM.
 */
int am_net_freeze(am_net *net, const char *pattern);

/** Find all shapes for samples of `features` and lay out the trunk. May be called again for other
 * features. Errors: net->error; AM_E_RECIPE for shapes that do not fit, two tensors of one name, a
 * value that nobody uses, a pattern that freezes nothing; AM_E_NOMEM. */
int am_net_shape(am_net *net, int64_t features);
/** Copy of an unshaped or shaped network, owned. Errors: AM_E_NOMEM. */
int am_net_copy(const am_net *net, am_net *out);
void am_net_free(am_net *net); /* accepts a zeroed one */

/** Trunk of a shaped network: tensors NODE.SUFFIX. Errors: AM_E_NOMEM. */
int am_net_trunk_layout(const am_net *net, am_dtype dtype, am_param_layout *out);
/** Head "head.weight" [K, features of net->out], "head.bias" [K]. Errors: AM_E_RECIPE, AM_E_NOMEM.
 */
int am_net_head_layout(const am_net *net, int64_t classes, am_dtype dtype, am_param_layout *out);
/** Do samples have the features and labels that a shaped network needs? Errors: AM_E_RECIPE. Pure.
 */
int am_net_fits(const am_net *net, const am_samples *samples);
/** Labels a sample needs: one a row of net->out. */
int64_t am_net_labels(const am_net *net);

#endif
