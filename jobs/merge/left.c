/* SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/left.h"

#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "solver/merge/dense.h"

static bool is_complete(const am_merge_plan *plan, const am_ckpt_writer *writer, int64_t tensor)
{
    const int64_t blocks = am_part_units(plan->match.output.t[tensor].numel, AM_BLOCK);
    for (int64_t b = 0; b < blocks; b++) {
        if (!am_ckpt_block_is_done(writer, tensor, b)) {
            return false;
        }
    }
    return true;
}

/* Give back the blocks of tensors that are made as a whole. */
static void redo_tensors(const am_merge_plan *plan, am_ckpt_writer *writer, bool all)
{
    for (int64_t i = 0; i < plan->match.output.n; i++) {
        if (all || !is_complete(plan, writer, i)) {
            am_ckpt_redo(writer, i);
        }
    }
}

int am_merge_left(const am_merge_plan *plan, am_ckpt_writer *writer, int ranks, int rank,
                  am_slice *out)
{
    const am_tensor_table *pieces = &plan->match.pieces;
    const am_method *method = plan->recipe.method;
    int64_t blocks = 0, n = 0, units = 0;
    if (am_ckpt_blocks_done(writer, &blocks) == 0) {
        return am_merge_slice_make(&plan->job, pieces, AM_BLOCK, NULL, ranks, rank, out);
    }
    const bool is_global = method->n_passes > 0 && plan->recipe.scope == AM_SCOPE_GLOBAL;
    if (is_global || plan->match.has_parts || method->n_passes > 0 || method->by_rows != NULL ||
        method->is_dense != NULL) {
        redo_tensors(plan, writer, is_global);
    }
    for (int64_t i = 0; i < pieces->n; i++) {
        units += am_part_units(pieces->t[i].numel, AM_BLOCK);
    }
    bool *is_left = am_new(units + 1, sizeof *is_left, "what is left of a merge");
    if (is_left == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < pieces->n; i++) {
        const int64_t tensor = plan->match.has_parts ? plan->match.at[i].tensor : i;
        for (int64_t b = 0; b < am_part_units(pieces->t[i].numel, AM_BLOCK); b++) {
            /* A tensor of several pieces is complete, or none of its blocks is done. */
            const int64_t block = plan->match.has_parts ? 0 : b;
            is_left[n++] = !am_ckpt_block_is_done(writer, tensor, block);
        }
    }
    const int rc = am_merge_slice_make(&plan->job, pieces, AM_BLOCK, is_left, ranks, rank, out);
    free(is_left);
    return rc;
}
