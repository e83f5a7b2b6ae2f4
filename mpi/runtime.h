/* Start and stop of a rank program: brings up the communicator, the log, stop requests and the
 * watchdog, and takes them down. Its .c file is the only one that may end the process.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_RUNTIME_H
#define AM_MPI_RUNTIME_H

#include "mpi/clock.h"
#include "mpi/stop.h"
#include "mpi/watchdog.h"
#include "mpi/world.h"

/** Start MPI (funneled threads), the log, signal handlers (SIGTERM, SIGINT, SIGUSR1 become stop
 * requests, SIGXFSZ and SIGPIPE are ignored), default MXCSR, and the watchdog.
 *
 * Collective [MPI_COMM_WORLD], once, first call of main. Works under mpirun, srun and alone. */
int am_start_all(int *argc, char ***argv);

/** Print the agreed error once, stop MPI and return the process exit code for `rc`.
 *
 * Collective [MPI_COMM_WORLD], last call of main; rc [same] (agreed before). */
int am_stop_all(int rc);

#endif
