/* How |C| lies to the bounds of theorem 2, over all rows and for each k.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_THEORY_RATIOS_H
#define AM_JOBS_THEORY_RATIOS_H

#include <stdio.h>
#include "jobs/theory/theory.h"

/** Members "bounds" and "bounds_by_k" of the result. */
void am_theory_ratios_json(const am_theory *theory, am_json *json);
/** The same for people. */
void am_theory_ratios_write(const am_theory *theory, FILE *out);

#endif
