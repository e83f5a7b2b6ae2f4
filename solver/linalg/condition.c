/* One Gram matrix gives both bounds: |(x^T x)^2|_F^(1/4) is one of the largest singular value, and
 * 1 / |l^-1|_F of its Cholesky factor one of the smallest. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/condition.h"

#include <math.h>
#include "mpi/error.h"
#include "solver/linalg/cholesky.h"

void am_condition_scale(am_matrix x, am_matrix gram, am_matrix square, double *low)
{
    (void)am_matrix_skewness(x, gram);
    am_multiply(1, gram, AM_AS_IS, gram, AM_AS_IS, 0, square);
    const double bound = sqrt(sqrt(am_matrix_norm(square)));
    const am_matrix here = am_matrix_local(x);
    for (int64_t i = 0; i < here.rows; i++) {
        for (int64_t j = 0; j < here.cols; j++) {
            here.at[i * here.step + j] /= bound;
        }
    }
    const bool is_known = am_cholesky(gram) == 0 && am_cholesky_invert(gram) == 0;
    *low = is_known ? fmin(1, 1 / (am_matrix_norm(gram) * bound)) : 0;
    if (!is_known) {
        am_error_clear();
    }
}
