/* Convolution of one image with windows one pixel apart, straight from its pixels: a line of a
 * window is contiguous, so a row of windows is never gathered. For processors with tiles
 * (real_tile.h). An element is a sum over its terms in their order, in blocks that follow from the
 * sizes alone. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_CONV_H
#define AM_SOLVER_TRAINING_REAL_CONV_H

#include "solver/training/real_tile.h"

#ifdef AM_HAS_TILES

/* The windows [k,k,C] of h by w output pixels, in an image [h+k-1, w+k-1, C] that has its padding.
 */
typedef struct am_conv_windows {
    int64_t h, w, C, k;
} am_conv_windows;

/* All functions are local; arrays are borrowed and do not overlap. */

/** Reals of the padded image and what kernels read behind it; of a packed weight for N outputs, and
 * of N packed gradients. Pure. */
int64_t AM_R(am_conv_image_reals)(const am_conv_windows *s);
int64_t AM_R(am_conv_weight_reals)(const am_conv_windows *s, int64_t N);
int64_t AM_R(am_conv_gradient_reals)(const am_conv_windows *s, int64_t N);

/** Copy an image [h+k-1-2p, w+k-1-2p, C] into the middle of `padded`, whose rest is zero already.
 */
void AM_R(am_conv_pad)(const am_conv_windows *s, int64_t padding, const real *x, real *padded);

/** Pack a weight [k,k,C,N]. */
void AM_R(am_conv_pack)(const am_conv_windows *s, int64_t N, const real *weight, real *packed);

/** y [h,w,N] := windows times weight, or += with `add`. */
void AM_R(am_conv_apply)(const am_conv_windows *s, const real *padded, const real *packed,
                         int64_t N, bool add, real *y);

/** dw [N,k,k,C] := dy^T times windows, or += with `add`; dy [h,w,N], scratch for packed gradients.
 */
void AM_R(am_conv_gradient)(const am_conv_windows *s, const real *padded, const real *dy, int64_t N,
                            bool add, real *scratch, real *dw);
#endif

#endif
