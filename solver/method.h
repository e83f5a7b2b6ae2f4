/* Merge methods: one file in methods/ exports one `const am_method am_method_<file>`. A method
 * computes on tiles of f64 and names what must be reduced between passes; the engine
 * (solver/merge.h) streams, reduces and calls it again. A method file holds no MPI call, no file
 * and no allocation. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_METHOD_H
#define AM_SOLVER_METHOD_H

#include <stdbool.h>
#include <stdint.h>

enum { AM_MAX_MODELS = 256, AM_TILE = 4096, AM_METHOD_MAX_PARAMS = 16 };

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
    AM_PROP_LINEAR = 1 << 3           /* linear in the task vectors */
};

/* One tile of one tensor. Index T of x is a model; `base` is NULL when the method needs none. */
typedef struct am_tile {
    int64_t n;              /* elements, <= AM_TILE */
    int models;             /* T */
    const double *base;     /* [n] or NULL */
    const double *const *x; /* [T][n] models (not task vectors) */
    const double *param; /* resolved global parameters, in table order (per-model slots unused) */
    const double *const *model_param; /* [T][table] resolved per-model parameters */
    double *out;                      /* [n] */
} am_tile;

typedef struct am_method {
    const char *name, *summary, *source; /* source: paper and equation */
    bool needs_base;
    int min_models, max_models; /* not counting the base; max 0: AM_MAX_MODELS */
    unsigned properties;
    const am_method_param *params;
    /* May be NULL. What is wrong with the parameters of a tensor (tile without data), NULL:
     * nothing. Called for every tensor before any work. Local, pure. */
    const char *(*check)(const am_tile *tile);
    /* out from the inputs of one tile. Local, pure. */
    void (*combine)(const am_tile *tile);
} am_method;

extern const am_method *const am_method_table[]; /* NULL-terminated */
/** Method called `name`, NULL if unknown. */
const am_method *am_method_find(const char *name);

#endif
