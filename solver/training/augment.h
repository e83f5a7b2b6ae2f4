/* Augmentation: training samples that are moved, mirrored, cropped and made noisy on their way in.
 * A wrapper over am_samples; who gathers from it does not know. What a sample becomes depends on
 * (seed, purpose, round, pass over the task, sample) only: not on ranks, batches or interruptions.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_AUGMENT_H
#define AM_SOLVER_TRAINING_AUGMENT_H

#include "mpi/param.h"
#include "mpi/rng.h"
#include "solver/training/net.h"

typedef struct am_augment_options {
    int64_t shift; /* pixels at most, in each direction, whole; what comes in repeats the edge */
    double flip;   /* probability of a mirrored sample, left to right */
    double crop;   /* share of height and width that is cut away at most; the rest is stretched */
    double noise;  /* standard deviation of what is added to every input */
} am_augment_options;

/** Parameter table of am_augment_options for recipes: augment_shift, augment_flip, augment_crop,
 * augment_noise; all 0 by default. */
const am_param *am_augment_params(void);
/** Is anything to be done? Pure. */
bool am_augment_is_on(const am_augment_options *options);

/* One axis of a sample: pixel i of the output lies between pixels near[i] and near[i] + 1. */
typedef struct am_augment_axis {
    int64_t n;
    int64_t *near; /* [n] owned */
    float *weight; /* [n] owned: of the second one */
} am_augment_axis;

typedef struct am_augment {
    am_augment_options options;
    am_samples from; /* borrowed */
    const char *task;
    int64_t channels;
    am_augment_axis y, x;
    float *image; /* [features] owned */
    uint64_t seed;
    const char *purpose; /* borrowed */
    int64_t round;
    am_rng place, noise; /* of the pass */
} am_augment;

/** Prepare to change samples of `from` for a shaped network. Images are what the network's layer
 * `image` sees, [height,width,channels]; without one, a square of single numbers.
 *
 * task      keys the random numbers; borrowed like from and purpose
 * Local. Memory: one sample. Freed by am_augment_free, also after an error.
 * Errors: AM_E_RECIPE token ids, or no image to shift, flip or crop; AM_E_NOMEM. */
int am_augment_make(const am_augment_options *options, const am_net *net, const am_samples *from,
                    const char *task, uint64_t seed, const char *purpose, int64_t round,
                    am_augment *out);
void am_augment_free(am_augment *augment); /* accepts a zeroed one */
/** Samples gathered from now on belong to this pass over the task, from 0. Local. */
void am_augment_pass(am_augment *augment, int64_t pass);
/** The changed samples. Borrowed: valid as long as `augment` stays where it is. */
am_samples am_augment_samples(am_augment *augment);

#endif
