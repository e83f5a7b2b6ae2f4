/* Fitted slopes in results. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_THEORY_SLOPE_H
#define AM_JOBS_THEORY_SLOPE_H

#include "mpi/jsonw.h"
#include "solver/theory/fit.h"

/** Members slope, standard_error, low, high and points of an open object. Local. */
void am_theory_slope_json(const am_theory_slope *slope, am_json *json);

#endif
