/* Agreement: how a failure on any rank becomes the same return code on all of them.
 *
 * Shape of every `_all` function: prepare locally and keep the first error (AM_KEEP), no early exit
 * -> AM_AGREE(comm) -> communicate -> agree again if that step can fail locally. A code returned by
 * an `_all` callee is already agreed: AM_TRY it.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_AGREE_H
#define AM_MPI_AGREE_H

#include <mpi.h>
#include <stdint.h>
#include "mpi/error.h"

/** Make one code of all ranks' codes.
 *
 * Collective [comm]. One MINLOC allreduce of (code, rank); on failure the origin (lowest rank with
 * the smallest code) broadcasts its message and every rank's slot holds it.
 * rc  [rank]  this rank's code;  returns 0 if every rank passed 0, else the agreed code. */
int am_agree_all(MPI_Comm comm, int rc);

/** As am_agree_all, at a safe point (batch or step boundary): a stop request (signal, time limit)
 * noted on any rank turns success into AM_E_STOPPED on all ranks. */
int am_agree_step_all(MPI_Comm comm, int rc);

/* Agreements under way, so that ranks whose batches take different times need not wait for each
 * other at every one: a rank may be AM_AGREE_AHEAD steps ahead of the slowest. */
enum { AM_AGREE_AHEAD = 48 };
typedef struct am_agree_code {
    int code, rank;
} am_agree_code;
typedef struct am_agree_queue {
    int64_t posted, done; /* steps; the others are under way */
    am_agree_code mine[AM_AGREE_AHEAD], worst[AM_AGREE_AHEAD];
    MPI_Request request[AM_AGREE_AHEAD];
} am_agree_queue;

/** As am_agree_step_all, but the answer may be that of an earlier step: a code comes back at most
 * AM_AGREE_AHEAD steps after the rank that had it passed it, on that rank at once. All ranks must
 * pass as many steps up to am_agree_finish_all; once a code came back, the queue is empty.
 *
 * Collective [comm], nonblocking. queue: zeros at first, neither moved nor left behind. */
int am_agree_ahead_all(MPI_Comm comm, am_agree_queue *queue, int rc);
/** What the steps that are still under way agree on. Collective [comm]. */
int am_agree_finish_all(MPI_Comm comm, am_agree_queue *queue);

/** Check that `hash` is equal on all ranks.
 *
 * Collective [comm]. hash [same] 64-bit hash of the arguments tagged [same]; what: names them.
 * Errors: AM_E_BUG naming `what`, on all ranks. */
int am_same_all(MPI_Comm comm, uint64_t hash, const char *what);

/** Broadcast a byte string made on `root`, after agreeing that making it worked.
 *
 * Collective [comm]. rc [root] result of making it (other ranks pass 0);
 * bytes [root in, others out] owned malloc'ed string, NUL-terminated beyond *n; *n its length.
 * Any length (split into big counts). Errors: the agreed rc; AM_E_NOMEM. */
int am_share_bytes_all(MPI_Comm comm, int root, int rc, char **bytes, int64_t *n);

/* Agree on `rc` and leave through `cleanup:` with the same code on every rank. */
#define AM_AGREE(comm) AM_TRY(am_agree_all((comm), rc))

#endif
