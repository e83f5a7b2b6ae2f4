/* Merge methods: one file in methods/ exports one `const am_method am_method_<file>`. A method
 * computes on tiles of f64 and names what must be reduced between passes; the engine
 * (solver/merge/merge.h) streams, reduces and calls it again. A method file holds no MPI call, no
 * file and no allocation.
 *
 *   for every unit (a tensor, or with scope global all tensors):
 *       for every pass:  visit all tiles -> reduce over ranks -> solve: unit->state
 *       combine all tiles -> output
 *
 * Or, of methods that factorise matrices (pattern M): a tensor lies whole on one rank, the method
 * gets the task vectors of all models as matrices, and gives the merged one.
 *
 * Tiles are cut at fixed places of a tensor (multiples of AM_TILE elements, or of whole rows), so
 * reductions give the same bits for any number of ranks, block size and memory.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_METHOD_H
#define AM_SOLVER_MERGE_METHOD_H

#include <stdbool.h>
#include <stdint.h>
#include "mpi/rng.h"
#include "mpi/tensor.h"
#include "solver/linalg/matrix.h"

enum {
    AM_MAX_MODELS = 256,
    AM_TILE = 4096,
    AM_METHOD_MAX_PARAMS = 16,
    AM_METHOD_MAX_PASSES = 4,
    AM_METHOD_MAX_CUTS = 2 * AM_MAX_MODELS
};

/* A parameter of a method; values are doubles (bools 0/1), resolved per tensor by the recipe. */
typedef struct am_method_param {
    const char *key; /* "weight" */
    bool per_model;  /* one value a model; else one a tensor */
    bool required;
    bool is_bool;
    double fallback;
    double low, high; /* inclusive; both 0: unbounded */
    const char *help;
} am_method_param; /* ends with a NULL key */

/* What a method declares to be true of it; tests/prop checks every declared property. */
enum {
    AM_PROP_ORDER_INVARIANT = 1 << 0, /* models permuted (with their parameters): same result */
    AM_PROP_EQUAL_IDENTITY = 1 << 1,  /* all models equal (weights summing to one): that model */
    AM_PROP_ELEMENTWISE = 1 << 2,     /* no reduction */
    AM_PROP_LINEAR = 1 << 3,          /* linear in the task vectors */
    AM_PROP_ZERO_REMOVES = 1 << 4     /* a model of `weight` 0 takes no part */
};

/* Over what a method reduces: each tensor alone, or all tensors as one vector in name order. */
typedef enum am_scope { AM_SCOPE_TENSOR = 1 << 0, AM_SCOPE_GLOBAL = 1 << 1 } am_scope;
/* What the paper says, or what mergekit computes, where they differ (METHODS.md 1.1). */
typedef enum am_semantics {
    AM_SEMANTICS_PAPER = 1 << 0,
    AM_SEMANTICS_MERGEKIT = 1 << 1
} am_semantics;

/* The top of an order: the `take` largest keys of a stream, ties by lowest global index. */
typedef struct am_cut {
    int stream;
    int64_t take;    /* in: elements wanted, 0..n; clamped */
    bool all_ties;   /* in: every element equal to the threshold belongs to the top */
    float threshold; /* out: the take-th largest key; +Inf for take 0 */
    int64_t ties;    /* out: how many elements equal to the threshold belong to the top */
} am_cut;

/* What reductions run over, and what they gave. */
typedef struct am_unit {
    am_scope scope;
    am_semantics semantics;
    int64_t n;           /* elements, over all ranks; floats only */
    int dims;            /* scope tensor: dimensions; else 1 */
    int64_t rows, cols;  /* scope tensor: last dimension is cols (a vector is one row); else 1, n */
    int64_t outer;       /* scope tensor: first dimension (a scalar: 1); else n */
    int64_t inner;       /* scope tensor: product of the dimensions after the second; else 1 */
    int models;          /* T: models that have the tensor */
    const am_layout *on; /* pattern M: the grid that the matrix is spread over; NULL: whole */
    /* [T] ranks of the task vectors that are known as products (adapters, stored directions), for
     * methods that take factors, of matrices whose task vectors all are and have fewer directions
     * together than the matrix; NULL else */
    const int64_t *factor_rank;
    bool has_gram;       /* scope tensor: every model has a Gram matrix of what it multiplies */
    am_dtype narrow;     /* what mergekit decides in (solver/merge/narrow.h); F64: not rounded */
    const double *param; /* of the unit's first tensor */
    const double *const *model_param;
    const double *sum; /* sums of all passes so far, pass after pass */
    const am_cut *cut; /* cuts of all passes so far, pass after pass */
    const am_rng *rng; /* [T] those of the unit's first tensor, as in its tiles */
    double *state;     /* [states] made by solve, read by later passes and combine */
} am_unit;

/* Task vectors rounded to unit->narrow, beside the f64 of the inputs: what decides. */
typedef enum am_rounded {
    AM_ROUNDED_NOT,   /* the callback does not look at them */
    AM_ROUNDED_TOO,   /* at both */
    AM_ROUNDED_ALONE, /* if there are some, then at them alone: base and x are NULL */
} am_rounded;

/* One tile of one tensor. Index T of x is a model; `base` is NULL when the method needs none. */
typedef struct am_tile {
    int64_t n;                   /* elements, <= AM_TILE; by rows: rows * cols, at least one row */
    int models;                  /* T */
    const double *base;          /* [n] or NULL */
    const double *const *x;      /* [T][n] models (not task vectors) */
    const float *const *rounded; /* [T][n] task vectors, rounded; NULL: see am_rounded, or F64 */
    const double *const *aux;    /* [T][n] second input of each model (Fisher), or NULL */
    const double *param; /* resolved global parameters, in table order (per-model slots unused) */
    const double *const *model_param; /* [T][table] resolved per-model parameters */
    const am_unit *unit;              /* for `check`: scope, semantics and the shape alone */
    int64_t lo;                       /* first element's index in the tensor */
    int64_t rows, cols;               /* by rows: whole rows of the tensor; else 1, n */
    int64_t numel;                    /* elements of the tensor, over all ranks */
    int64_t layer, layers; /* number in the tensor's name (-1: outside the layers), and how many */
    const am_rng *rng; /* [T] keyed by (seed, method, model, tensor); counter: index in tensor */
    int64_t *seen;     /* [cuts] engine's own: see am_tile_top */
    double *scratch;   /* [method->scratch(T)][n], contents undefined */
    double *out;       /* [n]; combine only */
} am_tile;

/* A tensor as a matrix [first dimension, all others], whole or spread over a grid: pattern M. */
typedef struct am_dense {
    const am_unit *unit; /* shape, models, parameters, generators */
    am_matrix *delta;    /* [T] task vectors, or models without a base; may be overwritten */
    /* [T] in place of delta where unit->factor_rank is not NULL: left [rows, rank] right [rank,
     * cols]; may be overwritten */
    am_matrix *left, *right;
    am_matrix *gram; /* [T] of the inputs, [cols, cols], where needs_gram; may be overwritten */
    am_matrix out;   /* the merged task vector, that comes on top of the base, or the merged
                        model; undefined yet */
    am_arena *work;  /* dense_bytes of it are free; what is taken lies as `out` does */
} am_dense;

/* One pass over the data before combine. Callbacks are local and pure. */
typedef struct am_pass {
    am_rounded rounded;
    /* SUM: how many sums; ORDER: how many key streams. 0: the pass is skipped for this unit. */
    int (*count)(const am_unit *unit);
    /* SUM (else NULL): sum[count] += the tile's own sums, starting from 0; added without error. */
    void (*sums)(const am_tile *tile, double *sum);
    /* ORDER (else NULL): key[count][n], f32, >= 0 and not NaN. */
    void (*keys)(const am_tile *tile, float *const *key);
    /* ORDER: the cuts wanted (stream, take, all_ties); returns how many, <= AM_METHOD_MAX_CUTS. */
    int (*cuts)(const am_unit *unit, am_cut *cut);
    /* After the reduction, on every rank alike; may be NULL. Returns NULL or what went wrong. */
    const char *(*solve)(const am_unit *unit);
} am_pass;

typedef struct am_method {
    const char *name, *summary, *source; /* source: paper and equation */
    bool needs_base;
    bool takes_base;      /* works without a base; with one, on task vectors */
    bool base_is_model;   /* recipes: a base_model is one more model, unless it is listed */
    bool drops_at_random; /* elements of the task vectors; parameters of sparsify.h */
    bool needs_aux;       /* a second checkpoint for each model: `fisher: PATH` beside it */
    bool needs_gram;      /* pattern M: Gram matrices of each model: `stats: PATH` beside it */
    int min_models, max_models; /* not counting the base; max 0: AM_MAX_MODELS */
    unsigned properties;
    const am_method_param *params;
    /* Masks of what it offers; the first of TENSOR, GLOBAL and of MERGEKIT, PAPER that is there is
     * the default unless default_scope says otherwise. 0: it makes no difference. */
    unsigned scopes, semantics;
    am_scope default_scope; /* 0: tensor */
    /* Tiles must be whole rows of the last dimension; NULL: never. */
    bool (*by_rows)(const am_unit *unit);
    bool whole_slices; /* a row is all that one index of the first dimension has (a vector: all) */
    int (*states)(const am_unit *unit); /* doubles of state; NULL: none */
    int (*scratch)(int models);         /* vectors of scratch; NULL: none */
    int n_passes;
    am_pass pass[AM_METHOD_MAX_PASSES];
    /* May be NULL. What is wrong with the parameters of a tensor (tile without data), NULL:
     * nothing. Called for every tensor before any work. Local, pure. */
    const char *(*check)(const am_tile *tile);
    /* out from the inputs of one tile. Local, pure. */
    void (*combine)(const am_tile *tile);
    am_rounded rounded; /* of combine: NOT or TOO */
    /* Whether a tensor, by its shape and parameters, is merged as a matrix; the others are
     * combined. NULL: none is. Methods with it have neither passes nor rows. */
    bool (*is_dense)(const am_unit *unit);
    int64_t (*dense_bytes)(const am_unit *unit); /* of `work`, exactly as merge_dense takes it */
    /* Rows and columns of the largest matrix that is factorised, where that is not the tensor;
     * NULL: it is. */
    void (*largest)(const am_unit *unit, int64_t *rows, int64_t *cols);
    bool takes_factors; /* merge_dense works on products where it gets them */
    bool on_grid;       /* merge_dense makes no difference between whole and spread matrices */
    /* out from the task vectors. Local, pure; collective over the grid of a spread matrix. Errors:
     * AM_E_NUMERIC; the engine names the tensor. */
    int (*merge_dense)(const am_dense *matrix);
} am_method;

/** Which elements of a tile belong to the top of a cut.
 *
 * Call it once a tile and cut in combine or in a later pass's sums or keys: tiles come in the order
 * of the global index, and tile->seen counts ties. Local. cut   index in tile->unit->cut;  key [n]
 * the stream's keys of this tile;  top [n] out */
void am_tile_top(const am_tile *tile, int cut, const float *key, bool *top);
/** In place of am_tile_top: x [n] becomes 0 where an element is not in the top. */
void am_tile_keep(const am_tile *tile, int cut, const float *key, double *x);
/** The opposite: x [n] becomes 0 where an element is in the top. */
void am_tile_drop(const am_tile *tile, int cut, const float *key, double *x);

/** Inner products of the tile's models, or of their task vectors when it has a base, in the order
 * of a lower triangle (0,0) (1,0) (1,1) (2,0) ...: sum [T(T+1)/2] += . What angle methods give as
 * `sums`. Local. */
void am_tile_gram(const am_tile *tile, double *sum);
/** Element (i, j) of such a triangle. */
double am_gram_at(const double *sum, int i, int j);

extern const am_method *const am_method_table[]; /* NULL-terminated */
/** Method called `name`, NULL if unknown. */
const am_method *am_method_find(const char *name);

#endif
