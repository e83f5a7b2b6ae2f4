/* Memory that all ranks of a node share, for data that would else travel through messages.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_SHARED_H
#define AM_MPI_SHARED_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct am_shared {
    unsigned char *base; /* the same bytes on every rank, at different addresses; page aligned */
    int64_t bytes;
} am_shared;

/** Map `bytes` bytes, zeroed, into all ranks of comm. *is_shared is false, and nothing is mapped,
 * where the ranks are on several nodes, or the system has no room for it (/dev/shm): the caller
 * then sends messages. Leaves no name behind, also after a kill (but for the moment of the call).
 *
 * Collective [comm]; bytes [same]. Visibility: what a rank writes before a barrier, all ranks read
 * after it. AM_SHARED=no in the environment of any rank keeps memory private, for tests. */
int am_shared_create_all(MPI_Comm comm, int64_t bytes, am_shared *out, bool *is_shared);
/** Unmap; accepts a zeroed one. Local: the others may still use theirs. */
void am_shared_destroy(am_shared *shared);

/** All ranks have come here, and see what each of them wrote before. Collective [comm]. */
int am_shared_barrier_all(MPI_Comm comm);

#endif
