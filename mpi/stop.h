/* Requests to stop: signals, a time limit, a halt file. A request is a flag on one rank; ranks
 * agree on it at safe points (am_agree_step_all). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_STOP_H
#define AM_MPI_STOP_H

#include <stdbool.h>

/** True once this rank received a stop request. Not collective: agree before acting on it. */
bool am_stop_requested(void);
/** Make a stop request on this rank (time limit, halt file). */
void am_request_stop(void);

/** What asked for the stop: "SIGTERM", "SIGUSR1", ... or "time limit or halt file". */
const char *am_stop_reason(void);

/** SIGTERM, SIGINT and SIGUSR1 become requests, SIGXFSZ and SIGPIPE are ignored. By am_start_all.
 * Errors: AM_E_BUG. */
int am_stop_install(void);
/** From here on every rank ends by itself: mpirun sends SIGTERM to the others when the first one
 * has returned an error, and that must not count as a second signal. By am_stop_all. */
void am_stop_ignore(void);

#endif
