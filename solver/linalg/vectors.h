/* Vectors of f64 that lie whole on a rank. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_VECTORS_H
#define AM_SOLVER_LINALG_VECTORS_H

#include <stdint.h>

/** y [n] += a x [n]; they do not overlap. Local, pure: the same bits on every processor. */
void am_vector_add(int64_t n, double a, const double *x, double *y);

#endif
