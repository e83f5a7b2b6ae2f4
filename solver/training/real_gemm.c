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

void AM_R(am_gemm)(bool transpose_a, bool transpose_b, int64_t M, int64_t N, int64_t K,
                   const real *a, const real *b, real *c)
{
    if (M == 0 || N == 0) {
        return;
    }
    if (K == 0) {
        memset(c, 0, (size_t)(M * N) * sizeof(real));
        return;
    }
    const int64_t lda = transpose_a ? M : K, ldb = transpose_b ? K : N;
    cblas_gemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
               transpose_b ? CblasTrans : CblasNoTrans, am_int(M), am_int(N), am_int(K), 1, a,
               am_int(lda), b, am_int(ldb), 0, c, am_int(N));
}
