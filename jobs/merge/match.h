/* What every tensor of the output is made of: the tensors of the inputs by name, layers moved to
 * where slices want them, and the recipe's policies for what does not match. Local and pure: from
 * tables of names and shapes alone.
 *
 *   output      the tensors of the file
 *   pieces      what the engine merges: the same tensors, but one with rows that some inputs lack
 * is cut by rows, "embed" and "embed[32000:32016]", so that in each piece an input takes part or
 * does not SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_MATCH_H
#define AM_JOBS_MERGE_MATCH_H

#include "io/checkpoint/view.h"
#include "jobs/merge/recipe.h"

/* Inputs are numbered: the base if there is one, then the slots. Files: one for each input, then
 * the bases of slices that have another one than the first slice. */
typedef struct am_match_files {
    int n_inputs, n;
    const char *const *path;               /* [n] */
    const am_tensor_table *const *tensors; /* [n] */
    const int *base;                       /* [slices] file of each slice's base */
} am_match_files;

typedef struct am_match {
    int n_inputs;
    am_tensor_table output, pieces;
    am_view_place *at;    /* [pieces] where a piece lies in the output */
    am_view_place *place; /* [n_inputs, pieces]; source 0: the input's own file, 1 + f: file f */
    int *slice;           /* [pieces] */
    int64_t *layer;       /* [pieces] number in the output, -1: outside of the layers */
    int64_t *depth;       /* [pieces] layers of the stack that it lies in, 0: in none */
    int64_t layers;       /* of the output's deepest stack */
    bool *copy;           /* [pieces] copied from the first input that has it, not merged */
    bool has_views;       /* else every piece is a whole tensor of the input's own file */
    bool has_parts;       /* else the pieces are the tensors of the output */
} am_match;

/** Match the inputs.
 *
 * files  borrowed only for the call.  out: overwritten, freed by am_match_free, also after an error
 * Memory: (inputs x pieces) places of 24 bytes. Errors: AM_E_RECIPE a layer_range beyond a model's
 * layers; AM_E_DATA listing every tensor that is missing, extra, of another shape or of another
 * kind, unless a policy says what to do with it; AM_E_NOMEM. */
int am_match_make(const am_merge_recipe *recipe, const am_match_files *files, am_match *out);
void am_match_free(am_match *match);

#endif
