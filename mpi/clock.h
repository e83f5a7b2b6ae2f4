/* Monotonic time. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_CLOCK_H
#define AM_MPI_CLOCK_H

/** Monotonic time in seconds; async-signal-safe. Not collective. */
double am_seconds(void);

#endif
