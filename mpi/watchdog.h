/* A thread that ends the job when this rank has not moved for long: lost peers, a stuck file
 * system. It makes no MPI call itself. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_WATCHDOG_H
#define AM_MPI_WATCHDOG_H

/** Tell the watchdog that this rank moves: call once a batch or step (agreements do it too).
 * `phase` is a string literal (NULL: as before) that the watchdog prints when nothing has moved for
 * `am_watchdog_seconds`; it then ends the job with exit code 124 on all ranks. */
void am_alive(const char *phase);
/** Watchdog time-out in seconds, 0 turns it off; default 600, environment AM_STALL_SECONDS. */
void am_watchdog_set(double seconds);
/** At least so many seconds, for a step that is known to be long; off stays off. */
void am_watchdog_at_least(double seconds);

/** Start the thread; on_stall is called on it, once, and must not return. By am_start_all.
 * Errors: AM_E_USAGE for a bad AM_STALL_SECONDS, AM_E_NOMEM. */
int am_watchdog_start(void (*on_stall)(double idle_seconds, const char *phase));
/** End and join the thread; nothing if it does not run. */
void am_watchdog_stop(void);

#endif
