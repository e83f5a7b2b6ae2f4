/* A merge recipe in mergekit's form: what to merge, how, and the value of every parameter for a
 * given model and tensor. Local and pure; files are opened by plan.c.
 *
 *   merge_method: task_arithmetic         parameters: values are a scalar, a list (piecewise
 *   base_model: base.safetensors          linear over the layers), or a list of {filter, value};
 *   models:                               a model's own value goes before its slice's, that before
 *   - model: a.safetensors                the recipe's, that before the method's default
 *     parameters: {weight: 0.5}
 *   parameters: {lambda: 0.7}             slices: in place of models, layers of models one after
 *   dtype: float32                        the other, renumbered
 *
 * `models` is read as one slice of whole models.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_RECIPE_H
#define AM_JOBS_MERGE_RECIPE_H

#include "jobs/merge/layers.h"
#include "jobs/recipe/yaml.h"
#include "mpi/tensor.h"
#include "solver/merge/merge.h"

/* A model, or its layers [lo, hi) in one slice. */
typedef struct am_merge_model {
    const char *path;       /* as written, borrowed from the recipe */
    const am_node *node;    /* its entry */
    const am_node *setting; /* its `parameters`, NULL: none */
    const char *second;     /* path of its Fisher values, for methods that need them, else NULL */
    int64_t lo, hi;         /* slices only */
    int place;              /* in the list that it stands in, bases counted */
    int slot;               /* which model of the engine's job it is */
} am_merge_model;

typedef struct am_merge_slice {
    const am_node *node;    /* its entry, NULL: whole models */
    const am_node *setting; /* its `parameters`, NULL: none */
    const am_node *base;    /* path of its base, NULL: none is used */
    int64_t base_lo;        /* first layer of the base */
    int64_t at, layers;     /* first layer in the output, and how many */
    int first, n;           /* its models */
    int entries;            /* in its list, bases counted */
} am_merge_slice;

/* What to do with inputs that differ; every policy is a key of the recipe. */
typedef enum am_missing { /* a tensor that some inputs lack */
                          AM_MISSING_ERROR,
                          AM_MISSING_BASE,        /* the base's tensors; a model without: as base */
                          AM_MISSING_UNION,       /* every tensor, merged over those who have it */
                          AM_MISSING_INTERSECTION /* tensors that all inputs have */
} am_missing;
typedef enum am_vocab { /* outside of the layers: other numbers of rows */
                        AM_VOCAB_ERROR,
                        AM_VOCAB_CROP, /* the rows that all have */
                        AM_VOCAB_PAD,  /* all rows; an input takes no part in rows it lacks */
                        AM_VOCAB_MAP   /* rows follow their tokens (jobs/merge/vocab.h) */
} am_vocab;
typedef enum am_buffers { /* tensors that are not floats, and differ */
                          AM_BUFFERS_ERROR,
                          AM_BUFFERS_BASE /* those of the base, or of the first model */
} am_buffers;

typedef enum am_stats_of { /* what model statistics beside a model are of */
                           AM_STATS_OF_MODEL,
                           AM_STATS_OF_ANY /* also of another one */
} am_stats_of;

typedef struct am_merge_recipe {
    const am_yaml *yaml; /* borrowed */
    const am_method *method;
    int n_params;
    int n_models;           /* without bases */
    am_merge_model *models; /* [n_models] owned, slice after slice */
    int n_slices;
    am_merge_slice *slices; /* [n_slices] owned */
    int n_slots;            /* models of the engine's job; in each slice they keep their order */
    const char
        *base_path; /* base_model as written, NULL: none; whether or not the method uses it */
    bool has_base;
    const am_node *module_setting; /* `parameters` of the module, NULL: none */
    const am_node *setting;        /* the recipe's `parameters`, NULL: none */
    am_layers layers;
    am_missing missing;
    am_vocab vocab;
    am_buffers buffers;
    am_stats_of stats_of;
    const am_node *tokenizer; /* `tokenizer_source`, or `source` of `tokenizer`; NULL: union */
    const am_node *tokens;    /* `tokens` of `tokenizer`, NULL: none */
    int64_t pad_multiple;     /* rows are padded to a multiple of this one, 1: not */
    am_dtype dtype;           /* of the output's float tensors; AM_DTYPE_COUNT: as in the inputs */
    am_dtype work;            /* what mergekit computes in; AM_DTYPE_COUNT: as in the inputs */
    am_scope scope;           /* one that the method offers */
    am_semantics semantics;   /* likewise */
    uint64_t seed;            /* of random methods */
    bool has_grid;
    am_merge_grid grid; /* where large matrices are spread */
} am_merge_recipe;

/** Check a recipe and say on the log what of it is not used.
 *
 * yaml  borrowed for the life of `out`; out: overwritten, freed by am_merge_recipe_free.
 * Errors: AM_E_RECIPE with file, line and column: unknown keys, methods, parameters (each names the
 * nearest), wrong types, values out of range, no model. AM_E_NOMEM. */
int am_merge_recipe_read(const am_yaml *yaml, am_merge_recipe *out);
void am_merge_recipe_free(am_merge_recipe *recipe);

/** Value of parameter `p` of the method for `model` (NULL: a parameter of the whole merge) of
 * `slice` and `tensor`, that lies at `t` in [0, 1] of the slice's layers. Errors: AM_E_RECIPE when
 * it is required and nothing gives it. */
int am_merge_recipe_value(const am_merge_recipe *recipe, int p, const am_merge_slice *slice,
                          const am_merge_model *model, const char *tensor, double t, double *value);

/* ---- parts of am_merge_recipe_read ---- */

/** Check a `parameters` map (NULL: none): values of the method's own keys, a line on the log for
 * keys of other methods, an error for keys of none. */
int am_merge_check_setting(const am_method *method, const am_node *map, bool is_model);
/** `models`, `slices` or `modules`, and base_model: models, slices, slots. */
int am_merge_read_models(const am_node *root, am_merge_recipe *recipe);

#endif
