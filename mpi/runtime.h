/* Start and stop of a rank program, stop requests and the watchdog.
 * The only file that may end the process. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_RUNTIME_H
#define AM_MPI_RUNTIME_H

#include <mpi.h>
#include <stdbool.h>

/** Start MPI (funneled threads), the log, signal handlers (SIGTERM, SIGINT, SIGUSR1 become stop
 * requests, SIGXFSZ and SIGPIPE are ignored), default MXCSR, and the watchdog.
 *
 * Collective [MPI_COMM_WORLD], once, first call of main. Works under mpirun, srun and alone. */
int am_start_all(int *argc, char ***argv);

/** Print the agreed error once, stop MPI and return the process exit code for `rc`.
 *
 * Collective [MPI_COMM_WORLD], last call of main; rc [same] (agreed before). */
int am_stop_all(int rc);

/** The communicator of the job: a duplicate of MPI_COMM_WORLD. Not collective. */
MPI_Comm am_world(void);
int am_world_rank(void);
int am_world_size(void);

/** True once this rank received a stop request. Not collective: agree before acting on it. */
bool am_stop_requested(void);
/** Make a stop request on this rank (time limit, halt file). */
void am_request_stop(void);

/** What asked for the stop: "SIGTERM", "SIGUSR1", ... or "time limit or halt file". */
const char *am_stop_reason(void);

/** Tell the watchdog that this rank moves: call once a batch or step (agreements do it too).
 * `phase` is a string literal (NULL: as before) that the watchdog prints when nothing has moved for
 * `am_watchdog_seconds`; it then ends the job with exit code 124 on all ranks. */
void am_alive(const char *phase);
/** Watchdog time-out in seconds, 0 turns it off; default 600, environment AM_STALL_SECONDS. */
void am_watchdog_set(double seconds);

/** Monotonic time in seconds. */
double am_seconds(void);

/** "Open MPI v4.1.4" and the like, first line of the library's own version text. */
const char *am_mpi_version(void);

#endif
