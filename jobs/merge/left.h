/* What is left of a merge that was interrupted, and this rank's share of it.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_LEFT_H
#define AM_JOBS_MERGE_LEFT_H

#include "jobs/merge/plan.h"

/** This rank's slice of what the output still lacks.
 *
 * Methods that see elements alone go on block by block. Where a method makes passes, works by
 * rows or on matrices, a tensor that is not complete is made again as a whole (its blocks too that
 * are done), and with scope global every tensor is: what the passes had found is not kept, because
 * finding it again costs less than half of the work. Blocks that are made again are given back to
 * the writer. Local; the same plan and writer on every rank. Errors: AM_E_NOMEM. */
int am_merge_left(const am_merge_plan *plan, am_ckpt_writer *writer, int ranks, int rank,
                  am_slice *out);

#endif
