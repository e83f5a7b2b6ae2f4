/* Finetuning by low-rank adapters (solver/training/lora.h) in training jobs. Models outside a call
 * of training are whole: a call begins with new adapters on the weights that it is given and ends
 * with W + scale B A in their place, so that task vectors, merges and checkpoints are those of full
 * weights. What training moves, saves and restores in between is the adapters alone.
 *
 * New adapters are keyed by the seed, the purpose and the round, not by the task: all tasks of a
 * round begin at the same point. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SUITE_ADAPT_H
#define AM_JOBS_TRAINING_SUITE_ADAPT_H

#include "jobs/training/run_folder.h"
#include "jobs/training/suite/suite.h"

/** Give an open suite adapters, which it frees; lora borrowed, r = 0: none. Local. Errors: those of
 * am_lora_adapt; AM_E_NOMEM. */
int am_adapt_open(am_suite *suite, const am_lora_options *lora);

/** The network that finetuning trains: with adapters, or the suite's. */
const am_net *am_adapt_net(const am_suite *suite);

/** Begin a call with options: a trunk of am_adapt_net that has the weights of `whole` and new
 * adapters; without adapters, `whole` itself. slot: the task, or suite->n; a trunk lives until the
 * next call with its slot. Local. Errors: AM_E_NOMEM. */
int am_adapt_begin(am_suite *suite, int slot, void *whole, const am_train_options *options,
                   void **trunk);
/** Its weights with the adapters folded in, into `whole`. Local. Errors: AM_E_NOMEM. */
int am_adapt_end(const am_suite *suite, void *trunk, void *whole);

/** Write the adapters as PEFT does: RUN/adapter/adapter_config.json and adapter_model.safetensors;
 * nothing without adapters. Collective [suite->comm]. */
int am_adapt_save_all(const am_suite *suite, const am_run_folder *folder, const void *trunk);

#endif
