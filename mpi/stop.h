/* Requests to stop: signals, a time limit, a halt file. A request is a flag on one rank; ranks
 * agree on it at safe points (am_agree_step_all). SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_STOP_H
#define AM_MPI_STOP_H

#include <stdbool.h>

/** True once this rank received a stop request. Not collective: agree before acting on it. */
bool am_stop_requested(void);
/** Make a stop request on this rank (time limit, halt file). */
void am_request_stop(void);

/** What asked for the stop: "SIGTERM", "SIGUSR1", "the time limit", "the halt file OUT.halt". */
const char *am_stop_reason(void);

/** Request a stop on this rank when `seconds` from now are nearly over: a tenth of them earlier,
 * AM_STOP_MARGIN_SECONDS at most, so that state can be saved. Replaces an earlier limit. */
void am_stop_after(double seconds);
enum { AM_STOP_MARGIN_SECONDS = 120 };
/** Request a stop on this rank once the file `path` exists; looked for about once a second. NULL:
 * no more. Errors: AM_E_CREATE if it is there already (naming it), or the path is too long. */
int am_stop_on_file(const char *path);
/** Seconds of a duration: "90", "90s", "1.5h", "2d", "30m", "HH:MM:SS", "D-HH:MM:SS".
 * Errors: AM_E_USAGE. */
int am_parse_duration(const char *text, double *seconds);

/** SIGTERM, SIGINT and SIGUSR1 become requests, SIGXFSZ and SIGPIPE are ignored; the end of a Slurm
 * job (SLURM_JOB_END_TIME) becomes the time limit. By am_start_all. Errors: AM_E_BUG. */
int am_stop_install(void);
/** From here on every rank ends by itself: mpirun sends SIGTERM to the others when the first one
 * has returned an error, and that must not count as a second signal. By am_stop_all. */
void am_stop_ignore(void);

#endif
