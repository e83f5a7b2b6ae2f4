/* The communicator of the job, its size and this rank, set once by am_start_all.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_WORLD_H
#define AM_MPI_WORLD_H

#include <mpi.h>

/** The communicator of the job: a duplicate of MPI_COMM_WORLD, MPI_COMM_NULL before the start. */
MPI_Comm am_world(void);
int am_world_rank(void); /* 0 before the start */
int am_world_size(void);

/** Duplicate MPI_COMM_WORLD. Collective [MPI_COMM_WORLD], by am_start_all alone. Errors:
 * AM_E_NOMEM, AM_E_BUG. */
int am_world_open_all(void);
/** Free it, after a barrier. Collective, by am_stop_all alone. */
void am_world_close_all(void);

/** "Open MPI v4.1.4" and the like, first line of the library's own version text. */
const char *am_mpi_version(void);

#endif
