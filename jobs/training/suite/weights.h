/* Trunk and heads of a suite as checkpoints, and back. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SUITE_WEIGHTS_H
#define AM_JOBS_TRAINING_SUITE_WEIGHTS_H

#include "io/checkpoint/checkpoint.h"
#include "jobs/training/suite/suite.h"

/** All heads as one checkpoint, tensors "<task>.head.weight" and "<task>.head.bias"; and back.
 * Collective. */
int am_suite_save_heads_all(const am_suite *suite, const char *path,
                            const am_ckpt_options *options);
int am_suite_load_heads_all(am_suite *suite, const char *path);
/** A trunk as a checkpoint; and back. Collective. */
int am_suite_save_trunk_all(const am_suite *suite, const char *path, const void *trunk,
                            const am_ckpt_options *options);
int am_suite_load_trunk_all(const am_suite *suite, const char *path, void *trunk);

#endif
