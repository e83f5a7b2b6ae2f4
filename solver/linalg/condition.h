/* Bounds of singular values, before a polar factor is iterated for. For the files of solver/linalg
 * alone. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_CONDITION_H
#define AM_SOLVER_LINALG_CONDITION_H

#include "solver/linalg/matrix.h"

/** Bring the largest singular value of x to at most 1, by a bound of it; *low: what none is smaller
 * than then, 0 if that is below 1e-8 or so, which a Gram matrix does not see.
 *
 * x  not zero, 1/2 <= |x| < 1;  gram, square [k,k], k = min(rows, cols): scratch
 * Local, or collective over the grid of x. */
void am_condition_scale(am_matrix x, am_matrix gram, am_matrix square, double *low);

#endif
