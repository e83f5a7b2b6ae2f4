/* What is measured by round. The points of an alpha are a unit of RUN/units (measured.h) that
 * grows, so that a run that goes on has those of the rounds before. SPDX-License-Identifier:
 * BSD-3-Clause
 */
#ifndef AM_JOBS_TRAINING_ITERATE_POINTS_H
#define AM_JOBS_TRAINING_ITERATE_POINTS_H

#include <stdint.h>
#include "mpi/jsonw.h"

/* A round. All fields are f64, so that points are stored as an array of them; NaN: not measured. */
typedef struct am_point {
    double validation, validation_loss; /* mean accuracy; mean loss, nats */
    double test, test_loss;             /* likewise, on test data */
    double noise, noise_expected;       /* energy of what a merge drops at random */
} am_point;

enum { AM_POINT_REALS = sizeof(am_point) / sizeof(double) };

/** Member "points": point[0..n] with their rounds. epochs: of a round. Local. */
void am_points_json(const am_point *point, int64_t n, int64_t epochs, am_json *json);

#endif
