/* How much memory a merge takes on one rank, and the block that fits a budget; from headers alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_MEMORY_H
#define AM_JOBS_MERGE_MEMORY_H

#include "jobs/merge/plan.h"

/* Bytes of the largest process of a communicator, libraries with it. */
typedef struct am_process {
    int64_t peak, now; /* VmHWM, VmRSS */
} am_process;

typedef struct am_merge_need {
    am_process process;                /* before the merge */
    int64_t block, unit_bytes;         /* of the job: see am_merge_job */
    int64_t peak;                      /* bytes: predicted for the largest process */
    int64_t read, written;             /* bytes of tensors, on the rank that reads, writes most */
    int64_t total_read, total_written; /* on all ranks */
    int visits; /* of the data, at most: passes and the last one, which combines */
} am_merge_need;

/** Let what is freed go back to the system at once, so that the peak is what is in use: buffers
 * that grow would leave holes behind. Local; before anything large is allocated. */
void am_memory_keep_no_holes(void);
/** Collective [comm]. Errors: AM_E_IO; agreed. */
int am_memory_process_all(MPI_Comm comm, am_process *out);
/** The largest block that keeps every one of `ranks` ranks below `memory` bytes, or the given one
 * (elements, 0: choose), and what the merge then takes.
 *
 * process  what the process holds once the plan is made. Local, pure but for memory; the same on
 * all ranks for the same arguments. Errors: AM_E_USAGE naming the smallest budget that does;
 * AM_E_NOMEM. */
int am_merge_fit(const am_merge_plan *plan, int ranks, int64_t memory, int64_t block,
                 const am_process *process, am_merge_need *out);

#endif
