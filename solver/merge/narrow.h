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
/** x [n] = x - base rounded, both rounded before. */
void am_narrow_subtract(am_dtype dtype, float *x, const float *base, int64_t n);
/** The same from the bits of bf16, or without a base [n] their values. Returns whether all inputs
 * are finite. */
bool am_narrow_from_bf16(const uint16_t *raw, const float *base, int64_t n, float *x);
/** sum [n] += rounded[t] factor weight where kept [n] is not 0, products rounded; sums are f32. */
void am_narrow_votes(const am_tile *tile, int t, const double *kept, double factor, double weight,
                     double *sum);
/** square [n] = sum over the models of (rounded - mean)^2 in f64, of elements lo .. lo + n. */
void am_narrow_squares(const am_tile *tile, int64_t lo, int64_t n, double *square);
/** sum [n of the tile] = the sum of the rounded task vectors, in f32 as mergekit adds them. */
void am_narrow_sum(const am_tile *tile, double *sum);

#endif
