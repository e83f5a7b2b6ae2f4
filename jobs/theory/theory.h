/* `allmerge theory`: task vectors against gradients on the networks and tasks of a recipe.
 *
 *   base, heads -> for each number of tasks T and each eta: trajectories, gap, second-order term
 *               -> slopes in eta for each (T, alpha, k), bounds, gradients by epoch
 *               -> for each T, at the base and at each end of the joint descent: spectra
 *               -> for each optimiser, T and eta: its gap
 *
 * A (T, eta) is the unit that a killed run does not do again, and so are the spectra of a place and
 * a (T, eta) of an optimiser.
 * SPDX-License-Identifier: BSD-3-Clause
 */
#ifndef AM_JOBS_THEORY_THEORY_H
#define AM_JOBS_THEORY_THEORY_H

#include "jobs/theory/optimizers.h"
#include "jobs/theory/spectra.h"
#include "jobs/training/job.h"
#include "solver/theory/fit.h"
#include "solver/theory/sweep.h"

typedef struct am_theory {
    am_theory_section section;
    am_theory_row *row;      /* [n_tasks][n_etas][n_alphas][n_k] owned */
    am_theory_epoch **epoch; /* [n_tasks * n_etas] owned: [tasks][largest k] each */
    am_theory_spectra spectra;
    am_theory_optimizers optimizers;
} am_theory;

/* The orders of the gap and of what the second-order term leaves of it, over the etas. */
typedef struct am_theory_orders {
    am_theory_slope gap, residual;
} am_theory_orders;

/** Row of the i-th T, the e-th eta, alpha a and k j. Pure. */
const am_theory_row *am_theory_row_at(const am_theory *theory, int i, int e, int a, int j);
/** Fit the etas of (T, alpha, k). Local, pure. */
am_theory_orders am_theory_orders_of(const am_theory *theory, int i, int a, int j);

/** Is it a recipe for theory? Errors: AM_E_RECIPE naming the key. Local, pure. */
int am_theory_check(const am_train_recipe *recipe);
/** Measure everything that is not on disk. job->self is an am_theory, zeroed, freed by
 * am_theory_free. Collective [it->suite.comm]. Errors: those of the parts; AM_E_STOPPED. */
int am_theory_work_all(am_iterate *it, const am_run_folder *folder, const am_job *job);
void am_theory_free(am_theory *theory);

/** Members of the result: rows, slopes, bounds, epochs, spectra, optimisers.
 */
void am_theory_json(const am_iterate *it, const am_job *job, am_json *json);
/** The tables for people, owned by the caller. NULL with AM_E_NOMEM in the slot. */
char *am_theory_text(const am_iterate *it, const am_job *job);

#endif
