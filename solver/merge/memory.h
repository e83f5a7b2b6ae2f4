/* Blocks in memory as sources and sinks: a merge or an analysis of parameters that a rank holds,
 * whole or only its slice. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_MEMORY_H
#define AM_SOLVER_MERGE_MEMORY_H

#include "mpi/block.h"
#include "mpi/partition.h"

/* Tensor i's element j lies at reals[offset[i] + j]; for a slice only the elements of its spans
 * exist, and offset[i] may be negative. */
typedef struct am_memory {
    const char *label;              /* borrowed, for messages */
    const am_tensor_table *tensors; /* borrowed; float tensors, all of `dtype` */
    am_dtype dtype;                 /* F32 or F64: type of the reals */
    const int64_t *offset;          /* [tensors->n] borrowed */
    void *reals;                    /* [n] borrowed */
    int64_t n;
} am_memory;

/** A source or sink over `memory`, which must outlive it. Elements outside of the block are a bug
 * (AM_ASSERT). The sink rounds to nearest even. Local. */
am_source am_memory_source(am_memory *memory);
am_sink am_memory_sink(am_memory *memory);

/** Offsets for a block that holds just the elements of `slice`, span after span: offset
 * [tensors->n], filled for the tensors that the slice has (others: 0). Local, pure. */
void am_memory_slice_offsets(const am_slice *slice, const am_tensor_table *tensors,
                             int64_t *offset);

/** index[i] = i: am_merge_input.tensor of a source whose table is the output's. */
void am_memory_identity(int64_t *index, int64_t n);

#endif
