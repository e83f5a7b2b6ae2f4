/* Reading the inputs of a merge or an analysis: the output's tensor numbers are mapped to those of
 * each source, and values that are not finite are found where they are read. Local.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_INPUT_H
#define AM_SOLVER_MERGE_INPUT_H

#include <stdbool.h>
#include "solver/merge/merge.h"

/** Announce `pieces` (in the output's numbering) to a source that reads ahead. `mapped` [n] is the
 * caller's and must live as long as am_source.stage wants its spans. Absent tensors are left out.
 */
int am_input_stage(const am_merge_input *input, const am_span *pieces, int64_t n, am_span *mapped);
/** Tell a source to keep `pieces` once they are loaded, and nothing else. mapped [n] as above, free
 * on return. */
int am_input_hold(const am_merge_input *input, const am_span *pieces, int64_t n, am_span *mapped);

/** Elements [lo, lo+n) of output tensor `tensor` as f64. The tensor must be present.
 * Errors: the source's; AM_E_DATA naming file, tensor and element of the first value that is not
 * finite, unless allowed. */
int am_input_load(const am_merge_input *input, int64_t tensor, int64_t lo, int64_t n,
                  bool allow_nonfinite, double *dst);
/** The same rounded to `dtype`, bf16 or f16, as f32; with `base` [n], rounded too, dst = x - base,
 * rounded again. work [n], undefined on return. */
int am_input_load_narrow(const am_merge_input *input, int64_t tensor, int64_t lo, int64_t n,
                         bool allow_nonfinite, am_dtype dtype, const float *base, double *work,
                         float *dst);

#endif
