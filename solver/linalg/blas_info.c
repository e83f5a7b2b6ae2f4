/* Which BLAS this program runs on; OpenBLAS is asked through weak symbols, so that any other BLAS
 * links too. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/linalg/blas_info.h"

char *openblas_get_config(void) __attribute__((weak));

const char *am_blas_version(void)
{
    return openblas_get_config != NULL ? openblas_get_config() : "BLAS (unknown vendor)";
}
