/* What a run of `theory` has measured so far: RUN/units/NAME.unit, one file for each number of
 * tasks and eta, exact and with a digest. A later attempt reads it instead of measuring again.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_THEORY_UNITS_H
#define AM_JOBS_THEORY_UNITS_H

#include <stdint.h>
#include "jobs/training/run_folder.h"

/** Read `n` numbers of a unit. *is_done: it is there and sound; a damaged one is named in a
 * warning. Collective [comm]; rank 0 reads; all [same]. Errors: AM_E_IO, AM_E_NOMEM, agreed. */
int am_theory_unit_read_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                            double *value, int64_t n, bool *is_done);
/** Write it, by rename. Collective [comm]; rank 0 writes. Errors: AM_E_CREATE, AM_E_IO, AM_E_NOMEM,
 * agreed. */
int am_theory_unit_write_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                             const double *value, int64_t n);

#endif
