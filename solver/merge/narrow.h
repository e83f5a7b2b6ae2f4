/* mergekit's arithmetic in bf16 and f16, where it decides: it computes in the dtype of the recipe,
 * so that task vectors and votes are rounded before magnitudes are ordered and signs elected.
 * Values are not rounded here: allmerge's are f64 until they are stored.
 *
 * Local and pure. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_NARROW_H
#define AM_SOLVER_MERGE_NARROW_H

#include "solver/merge/method.h"

/** What decisions about a tensor are rounded to: AM_DTYPE_BF16, AM_DTYPE_F16, or AM_DTYPE_F64 for
 * not at all. work   what mergekit computes in. */
am_dtype am_narrow_of(am_dtype work, am_semantics semantics, am_scope scope);
/** x [n] to the nearest number of bf16 or f16, ties to even. */
void am_narrow(am_dtype dtype, float *x, int64_t n);
/** out [n] = x - base, both and the difference rounded. */
void am_narrow_difference(am_dtype dtype, float *out, const double *x, const double *base,
                          int64_t n);
/** sum [n] += (x - base) factor weight where kept [n] is not 0, everything rounded but the sum,
 * which is f32. */
void am_narrow_votes(am_dtype dtype, const am_tile *tile, int t, const double *kept, double factor,
                     double weight, double *sum);
/** square [n] = sum over the models of (d - mean)^2 in f64, d the rounded differences of elements
 * lo .. lo + n. */
void am_narrow_squares(am_dtype dtype, const am_tile *tile, int64_t lo, int64_t n, double *square);
/** sum [n of the tile] = the sum of the rounded differences, in f32 as mergekit adds them. */
void am_narrow_sum(am_dtype dtype, const am_tile *tile, double *sum);

#endif
