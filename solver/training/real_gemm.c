/* Matrix product over CBLAS. The only file that calls BLAS for training.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real.h"

#include <cblas.h>
#include <string.h>
#include "mpi/bigcount.h"

#if AM_REAL == 32
#define cblas_gemm cblas_sgemm
#else
#define cblas_gemm cblas_dgemm
#endif

void AM_R(am_gemm_in)(int64_t M, int64_t N, int64_t K, real alpha, am_matrix a, am_matrix b,
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
    cblas_gemm(CblasRowMajor, a.transpose ? CblasTrans : CblasNoTrans,
               b.transpose ? CblasTrans : CblasNoTrans, am_int(M), am_int(N), am_int(K), alpha,
               a.at, am_int(a.ld), b.at, am_int(b.ld), add ? 1 : 0, c, am_int(ldc));
}

void AM_R(am_gemm_to)(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K,
                      const real *a, const real *b, bool add, real *c)
{
    const am_matrix in_a = {.at = a, .ld = transpose_a ? M : K, .transpose = transpose_a};
    const am_matrix in_b = {.at = b, .ld = transpose_b ? K : N, .transpose = transpose_b};
    AM_R(am_gemm_in)(M, N, K, 1, in_a, in_b, add, c, N);
}

void AM_R(am_gemm)(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K,
                   const real *a, const real *b, real *c)
{
    AM_R(am_gemm_to)(transpose_a, transpose_b, M, N, K, a, b, false, c);
}
