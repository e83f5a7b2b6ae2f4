/* One source for two precisions: files in layers/, optim/ and real_*.c are compiled with
 * -DAM_REAL=32 and -DAM_REAL=64. `real` is the element type; every external symbol is wrapped in
 * AM_R(), which appends _f32 or _f64. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_H
#define AM_SOLVER_TRAINING_REAL_H

#include <stdbool.h>
#include <stdint.h>
#include "mpi/clones.h" /* AM_CLONES: the same bits at every vector width */

#define AM_REAL_JOIN(name, suffix) name##suffix

#if AM_REAL == 32
typedef float real;
#define AM_R(name)    AM_REAL_JOIN(name, _f32)
#define AM_REAL_NAME  "f32"
#define AM_REAL_DTYPE AM_DTYPE_F32
#elif AM_REAL == 64
typedef double real;
#define AM_R(name)    AM_REAL_JOIN(name, _f64)
#define AM_REAL_NAME  "f64"
#define AM_REAL_DTYPE AM_DTYPE_F64
#else
#error "compile with -DAM_REAL=32 or -DAM_REAL=64"
#endif

/** C[M,N] := op(A) op(B), row-major and densely packed; op(A) is [M,K], op(B) is [K,N].
 * A is stored [K,M] when transpose_a, B is stored [N,K] when transpose_b. K = 0 gives zeros. */
void AM_R(am_gemm)(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K,
                   const real *a, const real *b, real *c);
/** The same, or C += with `add`. */
void AM_R(am_gemm_to)(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K,
                      const real *a, const real *b, bool add, real *c);

/* A matrix inside a larger one: rows lie `ld` elements apart. */
typedef struct am_operand {
    const real *at;
    int64_t ld;
    bool transpose;
} am_operand;

/** C[M,N] := alpha op(A) op(B), or C += with `add`; rows of C lie ldc apart. */
void AM_R(am_gemm_in)(int64_t M, int64_t N, int64_t K, real alpha, am_operand a, am_operand b,
                      bool add, real *c, int64_t ldc);

#endif
