/* What allmerge asks of the BLAS library as a whole. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_BLAS_H
#define AM_SOLVER_BLAS_H

/** One BLAS thread per rank: ranks are the parallelism, and the order of additions inside a product
 * must not depend on the cores that are free. Does nothing on a BLAS without that call. Local,
 * cheap, may be called any number of times. */
void am_blas_single_thread(void);

#endif
