/* The merge engine: streams blocks from the inputs through a method into the output.
 * Knows no file: sources and sinks are vtables. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_MERGE_H
#define AM_SOLVER_MERGE_MERGE_H

#include <mpi.h>
#include "mpi/block.h"
#include "mpi/partition.h"
#include "solver/merge/method.h"

typedef struct am_merge_input {
    const am_source *source; /* borrowed */
    const int64_t
        *tensor; /* [output tensors] index in source->tensors for each output tensor, -1: none */
} am_merge_input;

/* Which matrices are spread over a process grid: those of methods that can (am_method.on_grid), of
 * at least `above` rows and columns. The grid is the job's, not of its ranks: others idle. */
typedef struct am_merge_grid {
    am_layout layout;
    int64_t above;
} am_merge_grid;

typedef struct am_merge_job {
    const am_method *method;
    const am_merge_input *base; /* NULL when there is none */
    int n_models;
    const am_merge_input *models; /* [n_models] */
    const am_sink *sink;          /* its table is the output's */
    /* Resolved parameters: param[tensor * P + p], model_param[(tensor * n_models + model) * P + p],
     * P = number of parameters of the method. */
    const double *param, *model_param;
    const am_merge_input *aux; /* [n_models] second inputs, NULL: none */
    /* [n_models] for each output tensor the Gram matrix of what it multiplies, [cols, cols], cols =
     * elements / first dimension; NULL: none. */
    const am_merge_input *gram;
    const am_merge_grid *grid; /* NULL: every matrix lies whole on one rank */
    am_scope scope;
    am_semantics semantics;
    const am_dtype *work; /* [output tensors] what mergekit computes in; NULL: F64 */
    uint64_t seed;
    const int64_t *layer; /* [output tensors] layer number or -1; NULL: all -1 */
    int64_t layers;       /* how many layers there are */
    /* Output tensors copied as raw bytes from `base` (or model 0): not floats. [output tensors] */
    const bool *copy;
    int64_t block;        /* elements loaded at a time, >= 1; any value, same bytes */
    const char *progress; /* title of the progress display, NULL: none */
    int64_t unit_bytes;   /* of units that are reduced together, but for one alone; 0: 16 MiB */
    bool allow_nonfinite; /* else NaN or Inf in an input is AM_E_DATA naming file, tensor, index */
} am_merge_job;

typedef struct am_merge_result {
    int64_t elements, bytes_read, bytes_written; /* this rank */
} am_merge_result;

/** Elements, rows, columns, outer and inner of a tensor that is a unit of its own. Local. */
void am_unit_shape(const am_method *method, const am_tensor *t, am_unit *unit);

/** Run the merge over this rank's slice (am_merge_slice_make of dense.h, or where the method has no
 * matrices am_slice_make). A model that lacks a tensor (-1) takes no part in it; with
 * scope global the base stands in for it.
 *
 * Slices are cut at multiples of AM_TILE for methods with passes; where a method works by rows, the
 * engine moves each cut up to the next tile of whole rows, on both sides alike.
 *
 * Collective [comm]; job [same] except the slice. Agreement every batch; stop requests are
 * AM_E_STOPPED. A tensor of at most `block` elements that is whole in the slice is staged once for
 * all of its passes; larger or shared ones are staged again for each visit of the data (one for
 * sums, mostly one for an order, at most five, one to combine). Reductions are sent for shared
 * tensors only.
 *
 * Memory in f64: max(block, tile) + (T + T with aux + 1) * max(32,768, tile) + scratch * tile, tile
 * being AM_TILE or the largest tile of whole rows; (T + 1) * tile in f32 where a method decides by
 * rounded task vectors; and of the units that are reduced together (one,
 * or those on several ranks): 576 bytes a sum, at most 16 MiB for orders. Of a method that merges
 * matrices besides, for the largest one of the slice: (T + 2) of it, its T Gram matrices if the
 * method needs them, and dense_bytes; of a matrix on a grid a share of these. Sources and sinks
 * hold their own. Errors: what sources and sinks return, agreed; AM_E_DATA, also for a tensor that
 * the method cannot do without; AM_E_NUMERIC a finite result that the output's dtype cannot hold,
 * or what a method's solve says; AM_E_NOMEM. */
int am_merge_run_all(MPI_Comm comm, const am_merge_job *job, const am_slice *slice,
                     am_merge_result *result);

#endif
