/* Element type conversion, exact or rounded once. Integer arithmetic for the 16-bit floats, so that
 * results depend on no instruction set; HDF5's own conversions are never used (they corrupt 16-bit
 * floats in 1.10). Arrays are little-endian, as the host must be.
 *
 *   widening    f16, bf16, f32 -> f32, f64: exact; a NaN stays a NaN of the same sign and leading
 *               payload bits and is made quiet
 *   narrowing   f64, f32 -> f16, bf16 directly, and f64 -> f32: one rounding, nearest even;
 *               overflow gives infinity, NaN stays a quiet NaN
 *   integers    to floats: nearest even (exact up to 53 or 24 bits); from floats: nearest even,
 *               clamped to the range, NaN gives 0; BOOL: 0 or 1
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DTYPE_H
#define AM_IO_DTYPE_H

#include "mpi/tensor.h"

/** Convert src[n] of type `from` (aligned to its element size) into dst[n]. No overlap. Local. */
void am_dtype_to_f64(am_dtype from, const void *src, int64_t n, double *dst);
void am_dtype_to_f32(am_dtype from, const void *src, int64_t n, float *dst);
/** Convert src[n] into dst[n] of type `to`. No overlap. Local. */
void am_dtype_from_f64(am_dtype to, const double *src, int64_t n, void *dst);
void am_dtype_from_f32(am_dtype to, const float *src, int64_t n, void *dst);

/** Reverse the bytes of each of n elements in place (big-endian data). */
void am_dtype_swap(am_dtype dtype, void *data, int64_t n);

#endif
