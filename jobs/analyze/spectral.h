/* analyze --spectral: spectra of task vectors as JSON and as a table.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_ANALYZE_SPECTRAL_H
#define AM_JOBS_ANALYZE_SPECTRAL_H

#include "jobs/merge/plan.h"
#include "mpi/jsonw.h"
#include "solver/analysis/spectra.h"

typedef struct am_spectral {
    am_spectra_rule rule;
    int64_t memory;                 /* bytes of a rank, 0: any */
    int models;                     /* T */
    const am_tensor_table *tensors; /* borrowed of the inputs */
    int *owner;                     /* [tensors] owned; NULL: nothing was made */
    am_spectra *of;                 /* [tensors] owned */
} am_spectral;

/** Spectra of all matrices; inputs: base and models.
 * Collective [comm]. Errors, agreed: AM_E_USAGE more than `memory`; those of am_spectra_all. */
int am_spectral_find_all(MPI_Comm comm, const am_inputs *inputs, am_spectral *spectral);
void am_spectral_free(am_spectral *spectral); /* accepts zeros */
/** Member "spectral" of an open object: that of a tensor, if it is a matrix; means over matrices.
 */
void am_spectral_write(am_json *j, const am_spectral *spectral, int64_t tensor);
void am_spectral_write_means(am_json *j, const am_spectral *spectral);
/** The means, a line a task, for people. path: names of base and models. */
void am_spectral_print(const am_spectral *spectral, char *const *path);

#endif
