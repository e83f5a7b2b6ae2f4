/* The plane that shows most of some points: their first two principal components, from the inner
 * products of the points alone. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ANALYSIS_PLANE_H
#define AM_SOLVER_ANALYSIS_PLANE_H

#include <stdint.h>

/** Principal components of n points d_i, centred; points that are equal count once.
 *
 *     mean = sum_i middle_i d_i        axis_c = sum_i weight_ic d_i    of length 1, or 0
 *     d_i is nearest to the plane at   mean + place_i0 axis_0 + place_i1 axis_1
 *
 * gram       [n,n]  inner products; the i-th and j-th are equal if the square of their distance
 *                   comes out as 0
 * middle     [n]    out; 0 for a point that is equal to an earlier one
 * weight     [n,2]  out
 * place      [n,2]  out
 * distance   [n]    out: from the plane
 * explained  [2]    out: share of the variance, 0..1; NaN if all points are equal
 * The first point has no positive coordinate; that settles the signs of the axes. A component
 * without variance is 0. Local, pure. Errors: AM_E_NOMEM, AM_E_NUMERIC (not finite). Source:
 * Torgerson (1952), classical scaling. */
int am_plane_make(int64_t n, const double *gram, double *middle, double *weight, double *place,
                  double *distance, double *explained);

#endif
