/* What optimisers do to theorem 1 on the tasks of a recipe: the listed ones, measured for each T
 * and eta, and their part of the report. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_THEORY_OPTIMIZERS_H
#define AM_JOBS_THEORY_OPTIMIZERS_H

#include <stdio.h>
#include "jobs/theory/section.h"
#include "jobs/training/iterate/iterate.h"
#include "solver/theory/optimizers.h"

typedef struct am_theory_optimizers {
    /* [optimizers][n_tasks][n_etas][n_alphas][n_k] owned; NULL: nothing is compared */
    am_theory_compared *row;
} am_theory_optimizers;

/** Room for what the section lists. Errors: AM_E_NOMEM. Local. */
int am_theory_optimizers_make(const am_theory_section *section, am_theory_optimizers *out);
void am_theory_optimizers_free(am_theory_optimizers *self); /* accepts a zeroed one */

/** Measure what is not on disk, a unit for each (optimiser, T, eta). Collective [it->suite.comm].
 * Errors: those of the parts; AM_E_STOPPED. */
int am_theory_optimizers_all(const am_iterate *it, const am_oracle *oracle,
                             const am_theory_section *section, am_theory_optimizers *self);

/** Members "optimizers" and "optimizer_slopes" of the result; the table for people. Nothing if
 * nothing is compared. */
void am_theory_optimizers_json(const am_theory_section *section, const am_theory_optimizers *self,
                               am_json *json);
void am_theory_optimizers_write(const am_theory_section *section, const am_theory_optimizers *self,
                                FILE *out);

#endif
