/* A journal: what a job is and which of its units are done, so that an interrupted job goes on.
 *
 *   FOLDER/plan             identity of the job (io/commit/identity.h) and a blob of its own (a
 * layout), with digests; in place before the first record FOLDER/000002-000005    records of rank 5
 * in attempt 2: {unit, digest, check}, 24 bytes each
 *
 * A record is written after the unit's data is on disk, never on an error path. Its check binds it
 * to the plan, so that neither a torn record nor one of another job is taken for one of this job. A
 * unit whose records contradict each other is not done. Files are only appended to by the attempt
 * that made them; on resume the records of all ranks are united, and the caller checks each unit's
 * data against its digest before it trusts it. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_COMMIT_JOURNAL_H
#define AM_IO_COMMIT_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>
#include "mpi/pace.h"

/* ---- rank 0 ---- */

typedef struct am_journal_plan {
    char *identity; /* owned */
    char *blob;     /* owned */
    int64_t blob_bytes;
    uint64_t digest; /* of everything; binds the records */
} am_journal_plan;

/** Read FOLDER/plan. Errors: AM_E_NOINPUT there is none, or it is damaged (nothing in the message
 * slot); AM_E_IO; AM_E_NOMEM. */
int am_journal_read_plan(const char *folder, am_journal_plan *out);
/** Make FOLDER (empty or absent) and put the plan in place, synced; sets plan->digest.
 * Errors: AM_E_CREATE, AM_E_IO, AM_E_NOMEM. */
int am_journal_write_plan(const char *folder, am_journal_plan *plan);
void am_journal_plan_free(am_journal_plan *plan);

/** Unite the records of all ranks and attempts: known[u] = 1 and value[u] for every unit that is
 * done, 0 for the others. *attempt: the number of the next attempt.
 * Errors: AM_E_IO, AM_E_NOMEM. */
int am_journal_unite(const char *folder, uint64_t plan, int64_t units, int64_t *value,
                     int64_t *known, int64_t *attempt);
/** Replace all records by one file of these, synced. Errors: AM_E_CREATE, AM_E_IO, AM_E_NOMEM. */
int am_journal_compact(const char *folder, uint64_t plan, int64_t units, const int64_t *value,
                       const int64_t *known, int64_t attempt);
/** Remove the journal, the plan first; nothing if there is none. Errors: AM_E_CREATE. */
int am_journal_remove(const char *folder);

/* ---- every rank ---- */

typedef struct am_journal {
    char *folder; /* owned; NULL: no journal */
    uint64_t plan;
    int64_t attempt, rank;
    int fd; /* -1: no record was written yet */
    int64_t at;
    int64_t n, capacity; /* records that wait for their data to be synced */
    struct am_journal_record *waiting;
    int64_t saved; /* records written */
    am_pace pace;
} am_journal;

/** Begin to take records. Nothing is created before the first save. Local. Errors: AM_E_NOMEM. */
int am_journal_open(const char *folder, uint64_t plan, int64_t attempt, int rank, double every,
                    am_journal *out);
/** A unit is done, but its data perhaps not on disk. Errors: AM_E_NOMEM. */
int am_journal_add(am_journal *journal, int64_t unit, uint64_t digest);
/** Write the records that wait: the data of their units is on disk. Errors: AM_E_IO, AM_E_CREATE;
 * nothing more may be added then. */
int am_journal_save(am_journal *journal);
void am_journal_close(am_journal *journal);

#endif
