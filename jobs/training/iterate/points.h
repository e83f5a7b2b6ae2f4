/* What is measured by round. The points of an alpha are saved as text beside its models, so that a
 * run that goes on has those of the rounds before. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ITERATE_POINTS_H
#define AM_JOBS_TRAINING_ITERATE_POINTS_H

#include <mpi.h>
#include "jobs/training/run_folder.h"
#include "mpi/jsonw.h"

/* A round; NaN: not measured. */
typedef struct am_point {
    double validation, validation_loss; /* mean accuracy; mean loss, nats */
    double test, test_loss;             /* likewise, on test data */
    double noise, noise_expected;       /* energy of what a merge drops at random */
} am_point;

/** Write point[1..n] as RUN/<name>, in place of what is there. Collective [comm]; rank 0 writes. */
int am_points_save_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                       const am_point *point, int64_t n);
/** Read point[1..*n] that RUN/<name> has, at most `most`; a file that is damaged or not there has
 * none. Collective [comm]. */
int am_points_read_all(MPI_Comm comm, const am_run_folder *folder, const char *name, int64_t most,
                       am_point *point, int64_t *n);
/** Member "points": point[0..n] with their rounds. epochs: of a round. */
void am_points_json(const am_point *point, int64_t n, int64_t epochs, am_json *json);

#endif
