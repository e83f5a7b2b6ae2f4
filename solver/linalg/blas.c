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
