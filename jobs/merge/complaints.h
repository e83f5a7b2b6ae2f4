/* A list of complaints for one message: the first 20, and how many in all.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_COMPLAINTS_H
#define AM_JOBS_MERGE_COMPLAINTS_H

#include <stddef.h>
#include <stdint.h>
#include "mpi/error.h"

typedef struct am_complaints {
    char text[AM_MESSAGE_BYTES];
    size_t used;
    int64_t n;
} am_complaints;

/** Add one. */
void am_complain(am_complaints *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** 0 if there is none, else am_fail(AM_E_DATA) with the title, the number and the list. */
int am_complaints_fail(const am_complaints *c, const char *title);

#endif
