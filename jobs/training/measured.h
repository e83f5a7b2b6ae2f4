/* What a run has measured so far: RUN/units/NAME.unit, numbers, exact and with a digest. A later
 * attempt reads them instead of measuring again. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_MEASURED_H
#define AM_JOBS_TRAINING_MEASURED_H

#include <stdbool.h>
#include <stdint.h>
#include "jobs/training/run_folder.h"

/** Read the `n` numbers of a unit. *is_done: it is there and sound; a damaged one is named in a
 * warning. Collective [comm]; rank 0 reads; all [same]. Errors: AM_E_IO, AM_E_NOMEM, agreed. */
int am_measured_read_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                         double *value, int64_t n, bool *is_done);
/** Of a unit that grows: the numbers that it has, at most `most`; *n 0: none, or damaged. Otherwise
 * the same. */
int am_measured_read_some_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                              double *value, int64_t most, int64_t *n);
/** Write it, by rename, in place of what is there; RUN/units is. Collective [comm]; rank 0 writes.
 * Errors: AM_E_CREATE, AM_E_IO, AM_E_NOMEM, agreed. */
int am_measured_write_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                          const double *value, int64_t n);

#endif
