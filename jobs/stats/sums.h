/* Sums of `stats` that survive: OUT.sums-a.h5 and OUT.sums-b.h5 by turns, with the number of
 * batches in them, and OUT.sums.json, what the job is (io/commit/identity.h). A later attempt of
 * the same job goes on from the newer sound one, on any number of ranks. The caller holds the
 * output's lock. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_STATS_SUMS_H
#define AM_JOBS_STATS_SUMS_H

#include "mpi/pace.h"
#include "solver/analysis/statistics.h"

enum { AM_SUMS_TURNS = 2 };

/* What becomes of sums that are there. */
typedef enum am_sums_other {
    AM_SUMS_REFUSE,  /* this job's are gone on with, those of another one are an error */
    AM_SUMS_REPLACE, /* this job's are gone on with, those of another one go */
    AM_SUMS_FRESH    /* all go */
} am_sums_other;

typedef struct am_sums {
    am_statistics *statistics; /* borrowed */
    const char *identity;      /* rank 0: what the job is; borrowed */
    char *path[AM_SUMS_TURNS]; /* owned */
    char *job;                 /* owned: path of what the job is */
    bool is_told;              /* rank 0: that is on disk */
    int64_t batches;           /* in the sums */
    int64_t saves, saved;      /* how many were made; batches in the last one */
    am_pace pace;              /* rank 0's counts */
} am_sums;

/** Begin with no batch, or where an earlier attempt was: then the sums are what it had saved.
 * output, other, save_every [same]; identity [root]. Collective [statistics->comm]. out: freed by
 * am_sums_free, also after an error. Errors: AM_E_CREATE (another job was interrupted: says in what
 * they differ; with AM_SUMS_REFUSE), AM_E_IO, AM_E_NOMEM; agreed. */
int am_sums_open_all(am_statistics *statistics, const char *output, const char *identity,
                     am_sums_other other, double save_every, am_sums *out);
void am_sums_free(am_sums *sums); /* accepts a zeroed one */

/** Save, if the last save has fewer batches. Collective. Errors: those of the writer; agreed. */
int am_sums_save_all(am_sums *sums);
/** After a batch: save if it is time. Collective. */
int am_sums_save_if_due_all(am_sums *sums);
/** Remove what was saved beside `output`. Collective [comm]. Errors: AM_E_CREATE, AM_E_IO. */
int am_sums_remove_all(MPI_Comm comm, const char *output);

#endif
