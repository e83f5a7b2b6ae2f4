/* Gradients by epoch, as arXiv 2508.16082 measures them: of the finetuning of every task from the
 * base, the full-batch gradient at the start of each epoch and the accumulated one of its steps,
 * their shares of all epochs and their cosines with those of the first; and of the task vector.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ITERATE_GRADIENTS_H
#define AM_JOBS_TRAINING_ITERATE_GRADIENTS_H

#include <stdio.h>
#include "jobs/training/iterate/iterate.h"

/* One (task, epoch). All fields are f64, so that a task is stored as an array of them; NaN: not
 * measured. theta: at the epoch's start. */
typedef struct am_gradient_epoch {
    double loss;   /* of the whole training set */
    double norm;   /* of its gradient */
    double share;  /* of the sum of these norms over the epochs, 0..1 */
    double cosine; /* with the gradient of the first epoch */
    /* Likewise of the accumulated gradient: the mean over the samples of the epoch of the
     * gradients of its steps, each at the weights of its step, before clipping. */
    double accumulated, accumulated_share, accumulated_cosine;
    double accumulated_full; /* its cosine with the full-batch gradient at the start */
    /* Of theta after the epoch, minus the base: its norm, and its cosine with minus the full-batch
     * gradient at the base. */
    double vector, vector_cosine;
} am_gradient_epoch;

enum { AM_GRADIENT_REALS = sizeof(am_gradient_epoch) / sizeof(double) };
enum { AM_GRADIENT_VECTORS = 6 }; /* f64, of a trunk: what measuring a task holds beside its tree */

/** Measure what is not on disk, a unit for each task, if the recipe asks for it. Collective
 * [it->suite.comm]. Fills it->gradient on every rank; it->trunk is overwritten. Errors: those of
 * the parts; AM_E_STOPPED. A task that diverges is a warning. */
int am_iterate_gradients_all(am_iterate *it);
/** Member "gradients" of the result, and the table for people; nothing if nothing was measured. */
void am_gradients_json(const am_iterate *it, am_json *json);
void am_gradients_write(const am_iterate *it, FILE *out);

#endif
