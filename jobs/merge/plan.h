/* From a merge recipe to a job of the merge engine: opens the inputs, matches their tensors, and
 * resolves every parameter. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_PLAN_H
#define AM_JOBS_MERGE_PLAN_H

#include "io/checkpoint/checkpoint.h"
#include "jobs/merge/match.h"
#include "jobs/merge/model.h"
#include "jobs/merge/recipe.h"
#include "jobs/merge/vocab.h"
#include "solver/merge/merge.h"

/* Open models. */
typedef struct am_inputs {
    int n;
    char **path;           /* [n] owned, NULL-terminated */
    am_model **model;      /* [n] owned */
    const char **files;    /* everything that is read, NULL-terminated; borrowed of the models */
    am_source *source;     /* [n] */
    am_merge_input *input; /* [n] index tables owned: output tensor -> tensor of the source */
} am_inputs;

/** Open n models; the index tables stay NULL.
 *
 * Collective [comm]; path [n, same] is copied; has_base: the first is the base, to which others
 * that are task vectors are added; buffer_bytes: read-ahead of each input.
 * Errors: those of am_model_open_all; agreed. out: freed by am_inputs_close, also after an error.
 */
int am_inputs_open_files_all(MPI_Comm comm, char *const *path, int n, bool has_base,
                             int64_t buffer_bytes, am_inputs *out);
/** The same for models with the same tensors, indexed by those of the first one.
 *
 * Errors: AM_E_DATA listing every tensor that is missing, extra, of another shape or of another
 * kind (the first 20, and how many); agreed. */
int am_inputs_open_all(MPI_Comm comm, char *const *path, int n, bool has_base, int64_t buffer_bytes,
                       am_inputs *out);
void am_inputs_close(am_inputs *inputs);

/** Check that the tensors of `tensors` that are not floats hold the same bytes in all n inputs
 * that have them.
 * Collective [comm]. Errors: AM_E_DATA listing those that differ; sources' errors; agreed. */
int am_inputs_compare_all(MPI_Comm comm, const am_tensor_table *tensors,
                          const am_merge_input *input, int n);

typedef struct am_merge_plan {
    am_yaml *yaml;
    am_merge_recipe recipe;
    am_inputs inputs;   /* base first if one is used, then the models, then bases of other slices,
                         * then the second checkpoints of models */
    am_vocab_rows rows; /* vocab: map */
    am_vocab_source **row_order; /* [inputs.n] owned; NULL: no rows move */
    am_match match;
    am_view **view;           /* [match.n_inputs] owned; NULL: the input's own source serves */
    const am_source **behind; /* [match.n_inputs, 1 + inputs.n] what a view reads */
    am_source *source;        /* [match.n_inputs] of the views */
    am_merge_input *input;    /* [match.n_inputs] index tables owned */
    am_merge_input *second;   /* [n_slots] index tables owned; NULL: the method needs none */
    double *param, *model_param;
    am_dtype *work;   /* [match.pieces.n] what mergekit computes in */
    am_merge_job job; /* all but the sink; its tensors are match.pieces */
    am_json resolved; /* the recipe after --set, as JSON text */
} am_merge_plan;

typedef struct am_merge_options {
    int64_t block;  /* elements loaded at a time; 0: chosen later (jobs/merge/memory.h) */
    int64_t memory; /* bytes a rank may take, when block is 0 */
    bool allow_nonfinite;
    int n_set; /* --set KEY=VALUE */
    char *const *set;
} am_merge_options;

/** Read, check and plan the whole merge; nothing is written.
 *
 * Collective [comm]; arguments [same]. out: freed by am_merge_plan_free, also after an error.
 * Memory: two tables of (models x parameters) f64 a tensor. Errors: those of am_yaml_read_all,
 * am_merge_recipe_read, am_inputs_open_all, am_inputs_compare_all; agreed. */
int am_merge_plan_all(MPI_Comm comm, const char *recipe, const am_merge_options *options,
                      am_merge_plan *out);
void am_merge_plan_free(am_merge_plan *plan);

#endif
