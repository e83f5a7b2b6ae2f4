/* A merge recipe in mergekit's form: what to merge, how, and the value of every parameter for a
 * given model and tensor. Local and pure; files are opened by plan.c.
 *
 *   merge_method: task_arithmetic         parameters: values are a scalar, a list (piecewise
 *   base_model: base.safetensors          linear over the layers), or a list of {filter, value};
 *   models:                               a model's own value goes before the recipe's, that
 *   - model: a.safetensors                before the method's default
 *     parameters: {weight: 0.5}
 *   parameters: {lambda: 0.7}
 *   dtype: float32
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_RECIPE_H
#define AM_JOBS_MERGE_RECIPE_H

#include "jobs/recipe/yaml.h"
#include "mpi/tensor.h"
#include "solver/method.h"

typedef struct am_merge_model {
    const char *path;       /* as written, borrowed from the recipe */
    const am_node *node;    /* its entry */
    const am_node *setting; /* its `parameters`, NULL: none */
} am_merge_model;

typedef struct am_merge_recipe {
    const am_yaml *yaml; /* borrowed */
    const am_method *method;
    int n_params;
    const am_node *base;    /* path of the base, NULL: the method needs none */
    int n_models;           /* without the base */
    am_merge_model *models; /* [n_models] owned */
    const am_node *setting; /* the recipe's `parameters`, NULL: none */
    am_dtype dtype;         /* of the output's float tensors; AM_DTYPE_COUNT: as in the inputs */
    am_scope scope;         /* one that the method offers */
    am_semantics semantics; /* likewise */
    uint64_t seed;          /* of random methods */
} am_merge_recipe;

/** Check a recipe and say on the log what of it is not used.
 *
 * yaml  borrowed for the life of `out`; out: overwritten, freed by am_merge_recipe_free.
 * Errors: AM_E_RECIPE with file, line and column: unknown keys, methods, parameters (each names the
 * nearest), wrong types, values out of range, no model. AM_E_NOMEM. */
int am_merge_recipe_read(const am_yaml *yaml, am_merge_recipe *out);
void am_merge_recipe_free(am_merge_recipe *recipe);

/** Value of parameter `p` of the method for `model` (-1: a parameter of the whole merge) and
 * `tensor` that lies at `t` in [0, 1] of the layers. Errors: AM_E_RECIPE when it is required and
 * nothing gives it. */
int am_merge_recipe_value(const am_merge_recipe *recipe, int p, int model, const char *tensor,
                          double t, double *value);

/** Number N of the layer in a tensor's name ("...layers.N....", "h.N.", "blocks.N.", "layer.N.",
 * "block.N."), -1 if there is none. */
int64_t am_layer_number(const char *tensor);
/** Place of a tensor among n_layers: N / (n_layers - 1); 0 outside of the layers or for one. */
double am_layer_position(const char *tensor, int64_t n_layers);

#endif
