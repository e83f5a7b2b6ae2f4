/* Vectors of AVX2 for the kernels of real_tile.c and real_conv.c. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_VECTOR_H
#define AM_SOLVER_TRAINING_REAL_VECTOR_H

#include <immintrin.h>
#include "solver/training/real.h"

#if AM_REAL == 32
typedef __m256 am_vector;
#define am_fma(a, b, c)  _mm256_fmadd_ps(a, b, c)
#define am_spread(p)     _mm256_broadcast_ss(p)
#define am_take(p)       _mm256_loadu_ps(p)
#define am_put(p, v)     _mm256_storeu_ps(p, v)
#define am_vector_zero() _mm256_setzero_ps()
#else
typedef __m256d am_vector;
#define am_fma(a, b, c)  _mm256_fmadd_pd(a, b, c)
#define am_spread(p)     _mm256_broadcast_sd(p)
#define am_take(p)       _mm256_loadu_pd(p)
#define am_put(p, v)     _mm256_storeu_pd(p, v)
#define am_vector_zero() _mm256_setzero_pd()
#endif

#define AM_TILE_CODE __attribute__((target("avx2,fma")))

/* A tile of a product in registers: rows by two vectors. */
enum {
    AM_TILE_VECTOR = 32 / (int)sizeof(real),
    AM_TILE_ROWS = 6,
    AM_TILE_COLUMNS = 2 * AM_TILE_VECTOR
};

#endif
