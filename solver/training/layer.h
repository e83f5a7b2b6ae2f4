/* What a layer is to the network, without its arithmetic: attributes, shapes, parameters, memory.
 * Each file in solver/layers/ exports one `const am_layer am_layer_<file>` per real type; the
 * arrays that its functions work on are in real_layer.h. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_LAYER_H
#define AM_SOLVER_TRAINING_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "mpi/param.h"

enum {
    AM_SHAPE_DIMS = 3,
    AM_LAYER_INPUTS = 2,
    AM_LAYER_PARAMS = 4,
    AM_LAYER_PARAM_DIMS = 4,
    AM_LAYER_ATTR_BYTES = 96
};

/* One sample of a value, channels last: [F], [T,F] or [H,W,C] reals, or [T] token ids. */
typedef struct am_shape {
    int n;
    int64_t d[AM_SHAPE_DIMS];
    bool is_ids;
} am_shape;

/** Elements; the last dimension; the product of the others. Pure. */
int64_t am_shape_numel(const am_shape *shape);
int64_t am_shape_features(const am_shape *shape);
int64_t am_shape_rows(const am_shape *shape);
/** "[28,28,1]" into a static per-thread buffer (4 in rotation). */
const char *am_shape_text(const am_shape *shape);

/* A parameter that a layer declares. The initial value is fill + sigma * normal + spread * uniform
 * in (-1, 1). */
typedef struct am_layer_param {
    const char *suffix; /* "weight" */
    int n;
    int64_t d[AM_LAYER_PARAM_DIMS];
    double fill, sigma, spread;
    /* A running statistic: saved with the model, moved by `rate` towards what the leaves put into
     * its place of the gradient, never by the optimiser. 0: trained. */
    double rate;
} am_layer_param;

/* One use of a layer in a network. */
typedef struct am_layer_site {
    const char *name;  /* borrowed: "blocks.0.qkv", for messages */
    const void *attrs; /* borrowed: the layer's own struct */
    am_shape in[AM_LAYER_INPUTS], out;
} am_layer_site;

/* What backward does with arrays other than dy, dx and dparam; bits. */
enum {
    AM_LAYER_READS_X = 1,      /* needs the inputs as they were */
    AM_LAYER_READS_Y = 2,      /* needs the output as forward left it */
    AM_LAYER_SPOILS_DY = 4,    /* uses dy as workspace */
    AM_LAYER_X_FOR_PARAMS = 8, /* reads the inputs for the gradients of parameters alone */
};

/* Which features of a layer's output are which of its input's, so that all of a network may be put
 * into another order and still compute the same (solver/align/). */
typedef enum am_axes_rule {
    AM_AXES_KEPT,   /* the layer works in this order only */
    AM_AXES_SAME,   /* the output's features are those of every input, in their order */
    AM_AXES_NEW,    /* the output's features are its own */
    AM_AXES_CYCLED, /* a view: the longer of input and output is the other one over and over */
    AM_AXES_HALVES, /* the input is twice the features of the output, one half after the other */
    AM_AXES_HEADS,  /* queries, keys and values of heads: am_layer.heads */
} am_axes_rule;
/* What runs along an axis of a parameter. */
enum { AM_AXIS_FIXED, AM_AXIS_IN, AM_AXIS_OUT };
typedef struct am_layer_axes {
    am_axes_rule rule;
    bool mixes; /* what becomes of a feature depends on the other ones: norms over features */
    unsigned char param[AM_LAYER_PARAMS][AM_LAYER_PARAM_DIMS]; /* AM_AXIS_* */
} am_layer_axes;
/* The input of attention is H queries, G keys, G values of D features each, its output H of D. */
typedef struct am_layer_heads {
    int64_t H, G, D;
    bool is_rotary; /* features of queries and keys have their place */
} am_layer_heads;

struct am_layer_args; /* real_layer.h */

typedef struct am_layer {
    const char *name, *summary;
    const am_param *attrs; /* NULL: none; no strings */
    int inputs;            /* 1 or 2 */
    bool takes_ids;        /* the input is token ids; no gradient is made for it */
    bool is_view;          /* the same elements in another shape: nothing is computed */
    bool is_sum;           /* y = x0 + x1: gradients are passed on, not computed */
    bool is_loss;          /* ends a head; never a node */
    bool is_elementwise;   /* dx may be dy */
    bool adds_dx;          /* backward adds to dx[i] where add[i]; else it only overwrites */
    am_layer_axes axes;
    void (*heads)(const am_layer_site *s, am_layer_heads *out); /* with AM_AXES_HEADS */

    /* Token ids are below this; NULL: the layer takes none. */
    int64_t (*vocabulary)(const void *attrs);
    /* Shape of the output. Errors: AM_E_RECIPE by am_layer_fail for inputs that do not fit. */
    int (*shape)(const am_layer_site *site, am_shape *out);
    /* Parameters into p[AM_LAYER_PARAMS]; returns how many. NULL: none. */
    int (*params)(const am_layer_site *site, am_layer_param *p);
    /* AM_LAYER_* bits. NULL: 0. */
    unsigned (*uses)(const am_layer_site *site);
    /* Bytes for B samples: of what forward keeps for backward, and of workspace during one call of
     * any function. NULL: 0. */
    int64_t (*kept)(const am_layer_site *site, int64_t B);
    int64_t (*scratch)(const am_layer_site *site, int64_t B);
    /* Second derivatives: bytes of what tangent keeps for curve, and of curve's workspace. */
    int64_t (*kept_dot)(const am_layer_site *site, int64_t B);
    int64_t (*curve_scratch)(const am_layer_site *site, int64_t B);

    /* The product of rows of inputs with a weight [K, ...]: terms of a row, in the order of the
     * weight's other dimensions; rows a sample; and rows [lo, hi) of the micro-batch as f64 into
     * to [hi - lo, terms], before forward. NULL: there is no such product. */
    int64_t (*product_terms)(const am_layer_site *site);
    int64_t (*product_rows)(const am_layer_site *site);
    void (*product_inputs)(const struct am_layer_args *a, int64_t lo, int64_t hi, double *to);

    void (*forward)(const struct am_layer_args *a);
    void (*backward)(const struct am_layer_args *a);
    /* Forward mode: y_dot from x_dot and param_dot, after forward. */
    void (*tangent)(const struct am_layer_args *a);
    /* The tangent of backward, for exact Hessian-vector products: dx_dot and dparam_dot from x,
     * x_dot, y, y_dot, dy, dy_dot, param and param_dot, after tangent and before backward. What
     * backward does to dy, dx and dparam it does to dy_dot, dx_dot and dparam_dot: it overwrites,
     * or adds where add[i]; it spoils dy_dot where backward spoils dy; where the layer is
     * elementwise, dx_dot may be dy_dot. dy is only read. */
    void (*curve)(const struct am_layer_args *a);
} am_layer;

/** am_fail(AM_E_RECIPE, ...) with "layer NAME: " before it. */
int am_layer_fail(const am_layer_site *site, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Index in the layer table (the same in both real types), -1 if unknown; layer at an index, NULL
 * past the end. */
int am_layer_find(const char *name);
const am_layer *am_layer_at(int index);

#endif
