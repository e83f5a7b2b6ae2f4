/* The largest eigenvalues of Hessians where descent begins and ends: of every task and of the sum
 * of the tasks, at the base and at theta_MT after the largest k for the largest eta.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_THEORY_SPECTRA_H
#define AM_JOBS_THEORY_SPECTRA_H

#include <stdio.h>
#include "jobs/theory/section.h"
#include "jobs/training/iterate/iterate.h"
#include "solver/theory/oracle.h"

/* Of one Hessian. All fields are f64, so that it is stored as an array of them. */
typedef struct am_theory_spectrum {
    double products, is_converged;                                          /* of Lanczos */
    double value[AM_THEORY_MAX_SPECTRUM], residual[AM_THEORY_MAX_SPECTRUM]; /* descending */
} am_theory_spectrum;

/* A place is the base (0) or the end for alpha a (1 + a), for each T. */
typedef struct am_theory_spectra {
    int n;                   /* eigenvalues of each: as asked, at most all of the trunk */
    int places;              /* of all T */
    am_theory_spectrum **at; /* [places] owned: its tasks, then their sum */
} am_theory_spectra;

/** Room for what section->spectrum asks of `trunk` parameters. Errors: AM_E_NOMEM. Local. After an
 * error only free it. */
int am_theory_spectra_make(const am_theory_section *section, int64_t trunk, am_theory_spectra *out);
void am_theory_spectra_free(am_theory_spectra *spectra); /* accepts a zeroed one */

/** Measure what is not on disk, a unit for each place. Collective [it->suite.comm]. Errors: those
 * of the parts; AM_E_STOPPED. */
int am_theory_spectra_all(const am_iterate *it, const am_oracle *oracle,
                          const am_theory_section *section, am_theory_spectra *spectra);

/** Member "spectra" of the result; the table for people. Nothing without section->spectrum. */
void am_theory_spectra_json(const am_iterate *it, const am_theory_section *section,
                            const am_theory_spectra *spectra, am_json *json);
void am_theory_spectra_write(const am_iterate *it, const am_theory_section *section,
                             const am_theory_spectra *spectra, FILE *out);

#endif
