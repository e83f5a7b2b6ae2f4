/* Memory of commands that hold whole matrices. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_BUDGET_H
#define AM_JOBS_MERGE_BUDGET_H

#include "jobs/merge/plan.h"

/** Whether `bytes` of matrices, on the rank that has most, fit `memory` (0: any) beside the process
 * and what its inputs hold.
 *
 * Collective [comm]; all but inputs [same]. advice: what else helps than more memory. Errors:
 * AM_E_USAGE naming the smallest budget that does; AM_E_IO. */
int am_budget_check_all(MPI_Comm comm, const am_inputs *inputs, int64_t bytes, int64_t memory,
                        const char *advice);

#endif
