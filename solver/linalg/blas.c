/* Thread count of the BLAS library. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/blas.h"

#include <stddef.h>

/* Weak: another BLAS than OpenBLAS links too. */
extern void openblas_set_num_threads(int threads) __attribute__((weak));

void am_blas_single_thread(void)
{
    if (openblas_set_num_threads != NULL) {
        openblas_set_num_threads(1);
    }
}

int64_t am_blas_bytes(int64_t longest)
{
    const int64_t mib = 1 << 20, bytes = 2 * mib + 2048 * longest;
    return bytes < 32 * mib ? bytes : 32 * mib;
}
