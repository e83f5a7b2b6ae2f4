/* Matrix product: our own (real_tile.h) where it is faster, else CBLAS. The only file that calls
 * BLAS for training. The choice depends on the shape and on the kind of processor.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real.h"

#include <cblas.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "solver/training/real_tile.h"

#if AM_REAL == 32
#define cblas_gemm cblas_sgemm
#else
#define cblas_gemm cblas_dgemm
#endif

/* Products with fewer terms, or columns, are our own. */
enum { AM_GEMM_SHALLOW = 512, AM_GEMM_NARROW = 64 };

void AM_R(am_gemm_in)(int64_t M, int64_t N, int64_t K, real alpha, am_operand a, am_operand b,
                      bool add, real *c, int64_t ldc)
{
    if (M == 0 || N == 0) {
        return;
    }
    if (K == 0) {
        for (int64_t m = 0; !add && m < M; m++) {
            memset(c + m * ldc, 0, (size_t)N * sizeof(real));
        }
        return;
    }
#ifdef AM_HAS_TILES
    if ((K <= AM_GEMM_SHALLOW || N <= AM_GEMM_NARROW) && AM_R(am_tile_suits)()) {
        AM_R(am_tile_gemm)(M, N, K, alpha, a, b, add, c, ldc);
        return;
    }
#endif
    cblas_gemm(CblasRowMajor, a.transpose ? CblasTrans : CblasNoTrans,
               b.transpose ? CblasTrans : CblasNoTrans, am_int(M), am_int(N), am_int(K), alpha,
               a.at, am_int(a.ld), b.at, am_int(b.ld), add ? 1 : 0, c, am_int(ldc));
}

void AM_R(am_gemm_to)(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K,
                      const real *a, const real *b, bool add, real *c)
{
    const am_operand in_a = {.at = a, .ld = transpose_a ? M : K, .transpose = transpose_a};
    const am_operand in_b = {.at = b, .ld = transpose_b ? K : N, .transpose = transpose_b};
    AM_R(am_gemm_in)(M, N, K, 1, in_a, in_b, add, c, N);
}

void AM_R(am_gemm)(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K,
                   const real *a, const real *b, real *c)
{
    AM_R(am_gemm_to)(transpose_a, transpose_b, M, N, K, a, b, false, c);
}
