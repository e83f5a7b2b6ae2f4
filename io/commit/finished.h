/* Whether an output is there already. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_COMMIT_FINISHED_H
#define AM_IO_COMMIT_FINISHED_H

#include "io/checkpoint/checkpoint.h"

/** Whether the output at `path` is there and is what this job would make: same recipe, inputs and
 * format, by its manifest, and no input written since. Local, rank 0. An output that is another's
 * is not an error. Errors: AM_E_IO, AM_E_NOMEM. */
int am_output_is_finished(const char *path, const am_ckpt_options *options, bool *is_finished);

#endif
