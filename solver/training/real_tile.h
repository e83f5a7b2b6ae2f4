/* Matrix product of our own for processors with AVX2 and FMA but without AVX-512, where it beats
 * the library on the shapes of training (tests/bench/README.md). An element of C is a sum over k in
 * its order, in blocks of AM_TILE_K: it depends on no other row or column. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_TILE_H
#define AM_SOLVER_TRAINING_REAL_TILE_H

#include "solver/training/real.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define AM_HAS_TILES 1

/** Is this a processor for it? Pure. */
bool AM_R(am_tile_suits)(void);

/** The contract of am_gemm_in with M, N, K > 0. One thread of a process at a time: the packed
 * blocks lie in static memory, 1.3 MB. */
void AM_R(am_tile_gemm)(int64_t M, int64_t N, int64_t K, real alpha, am_operand a, am_operand b,
                        bool add, real *c, int64_t ldc);
#endif

#endif
