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

/** Is every tensor of the file one of the network's, `known`? For work whose output takes the place
 * of the file: others would be lost. Local, pure. Errors: AM_E_DATA. */
int am_trunk_check(const am_ckpt *ckpt, const am_tensor_table *known);
/** The same of a file by its path. Collective [comm]. Errors: also those of am_ckpt_open_all;
 * agreed. */
int am_trunk_check_all(MPI_Comm comm, const char *path, const am_tensor_table *known);

#endif
