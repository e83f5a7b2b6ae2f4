/* How much memory a merge takes on one rank, and the block that fits a budget; from headers alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_MEMORY_H
#define AM_JOBS_MERGE_MEMORY_H

#include "jobs/merge/plan.h"

typedef struct am_merge_need {
    int64_t process; /* bytes: what the process holds before it merges, MPI and HDF5 with it */
    int64_t block;   /* elements of a batch */
    int64_t peak;    /* bytes: predicted for the whole process */
    int64_t read, written; /* bytes of files, on the rank that reads most */
    int visits;            /* of the data, at most: passes and the last one, which combines */
} am_merge_need;

/** Let what is freed go back to the system at once, so that the peak is what is in use: buffers
 * that grow would leave holes behind. Local; before anything large is allocated. */
void am_memory_keep_no_holes(void);
/** Bytes that the largest process of comm has held so far (VmHWM).
 * Collective [comm]. Errors: AM_E_IO; agreed. */
int am_memory_peak_all(MPI_Comm comm, int64_t *bytes);
/** The largest block that keeps a rank of `ranks` below `memory` bytes, or the given one (elements,
 * 0: choose), and what the merge then takes. process: am_memory_peak_all, once the plan is made.
 * Pure but for memory. Errors: AM_E_USAGE naming the smallest budget that does; AM_E_NOMEM. */
int am_merge_fit(const am_merge_plan *plan, int ranks, int64_t memory, int64_t block,
                 int64_t process, am_merge_need *out);

#endif
