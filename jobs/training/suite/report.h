/* What training measures of its epochs, as events (mpi/log.h). SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SUITE_REPORT_H
#define AM_JOBS_TRAINING_SUITE_REPORT_H

#include "jobs/training/suite/suite.h"

/** Events "epoch", one a record: loss, norms of gradients, throughput, energy of the updates of
 * every tensor. task: NULL for all tasks together. Local, rank 0 of the job reports. */
void am_report_epochs(const am_suite *suite, const am_train_options *options, const char *task,
                      const am_train_log *log);

#endif
