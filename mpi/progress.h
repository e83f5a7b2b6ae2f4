/* Progress of a long loop: a bar on a terminal, a line every 30 s in a batch log, nothing with
 * NO progress (AM_LOG_QUIET). Local, rank 0 prints. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_PROGRESS_H
#define AM_MPI_PROGRESS_H

#include <stdint.h>

typedef struct am_progress {
    const char *title, *unit;
    int64_t total, done;
    double started, printed; /* seconds */
} am_progress;

/** unit "B" prints sizes and rates in binary units; otherwise counts. */
void am_progress_start(am_progress *p, const char *title, int64_t total, const char *unit);
void am_progress_add(am_progress *p, int64_t amount);
void am_progress_end(am_progress *p);

#endif
