/* Which BLAS this program runs on. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_BLAS_INFO_H
#define AM_SOLVER_LINALG_BLAS_INFO_H

/** "OpenBLAS 0.3.21 ... Haswell" as the library describes itself, or "BLAS (unknown vendor)".
 * Not collective. */
const char *am_blas_version(void);

#endif
