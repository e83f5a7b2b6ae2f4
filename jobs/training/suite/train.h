/* Training the tasks of a suite: heads alone, each task from a trunk of its own, or all together.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SUITE_TRAIN_H
#define AM_JOBS_TRAINING_SUITE_TRAIN_H

#include "jobs/training/suite/suite.h"

/** Task i with the samples that suite->trains_on says and its head; all borrowed. */
am_task am_suite_training(const am_suite *suite, int i);

/** Train the heads on the features of a frozen trunk: every group its own tasks; then every rank
 * has all heads. Collective [suite->comm]. options: train_trunk and train_head are set here. */
int am_suite_probe_all(am_suite *suite, const void *trunk, const am_train_options *options);

/** Finetune the group's own tasks one after the other, each from its own trunk, heads frozen.
 *
 * Collective [suite->comm] (groups work side by side, then agree).
 * trunks [n] reals: trunk of task i, trained in place; used only where owner[i] is my_group, may be
 * NULL elsewhere. A task that diverges is AM_E_NUMERIC naming it. */
int am_suite_finetune_all(am_suite *suite, void *const *trunks, const am_train_options *options);

/** Finetune one of the group's own tasks. Collective [suite->group], not on all ranks: the caller
 * agrees, and calls am_suite_report_all. */
int am_suite_finetune_one_all(am_suite *suite, int task, void *trunk,
                              const am_train_options *options);

/** Log the epochs (report.h) and rollbacks (rollback.h) of all groups since the last report.
 * Collective [suite->comm]. */
int am_suite_report_all(am_suite *suite, const am_train_options *options);

/** Train one trunk on all tasks together, data-parallel over all ranks, from `trunk`, in place.
 * Heads are trained too if options->train_head. The epochs are logged (report.h), or left in
 * options->log if there is one. Collective [suite->comm]. Divergence is
 * AM_E_NUMERIC. */
int am_suite_joint_all(am_suite *suite, void *trunk, const am_train_options *options);

/** A state for am_suite_joint_all with these options, at its start: the optimiser's arrays then
 * live from call to call, and the trunk of those is one of am_adapt_net. Owned, freed by
 * am_train_state_free. Collective [suite->comm]. */
int am_suite_state_all(const am_suite *suite, const am_train_options *options,
                       am_train_state **out);

#endif
