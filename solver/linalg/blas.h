/* What allmerge asks of the BLAS library as a whole. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_BLAS_H
#define AM_SOLVER_BLAS_H

#include <stdint.h>

/** One BLAS thread per rank: ranks are the parallelism, and the order of additions inside a product
 * must not depend on the cores that are free. Does nothing on a BLAS without that call. Local,
 * cheap, may be called any number of times. */
void am_blas_single_thread(void);

/** Bytes that a product of matrices takes besides them: panels that OpenBLAS packs, for matrices
 * with sides of at most `longest` (0.3.21, Haswell: 2 KiB for each row or column, and 32 MiB at
 * most). */
int64_t am_blas_bytes(int64_t longest);

#endif
