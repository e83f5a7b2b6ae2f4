/* What a folder in Hugging Face layout holds beside its tensors, for the output of a merge: the
 * configuration and tokenizer of the base (or first model), and a model card.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_FOLDER_H
#define AM_JOBS_MERGE_FOLDER_H

#include "io/checkpoint/companion.h"
#include "jobs/merge/plan.h"

/** Gather the files. In config.json torch_dtype (dtype), the number of layers after slices and
 * vocab_size after other rows are put right where the keys are there; nothing else is touched. The
 * card holds no times, paths beyond the recipe's or host names.
 *
 * Collective [comm]; out: filled on rank 0, freed by am_companions_free on all. Errors: AM_E_DATA a
 * config.json that is no JSON object; AM_E_IO; AM_E_NOMEM; agreed. */
int am_merge_companions_all(MPI_Comm comm, const am_merge_plan *plan, am_companions *out);

#endif
