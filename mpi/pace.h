/* When to save state next: so rarely that saving takes no more than 2 % of the time.
 * Local and pure but for the clock: where ranks save together, one of them decides for all.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_PACE_H
#define AM_MPI_PACE_H

#include <stdbool.h>

enum {
    AM_PACE_COSTS = 50,          /* time between two saves: at least so many times what one takes */
    AM_PACE_LEAST_SECONDS = 5,   /* ... and this, */
    AM_PACE_MOST_SECONDS = 1800, /* ... but never more than this */
};
/* As `every` of am_pace_start: by the rule above. */
#define AM_PACE_AUTO (-1.0)

typedef struct am_pace {
    double every;      /* seconds; negative: by the rule above */
    double last, cost; /* when the last save ended, and what it took; seconds */
    double total;      /* of all saves; seconds */
} am_pace;

/** Begin now. every: seconds between saves, 0: at every opportunity, AM_PACE_AUTO: by their cost.
 */
void am_pace_start(am_pace *pace, double every);
bool am_pace_is_due(const am_pace *pace);
/** A save that began at `started` (am_seconds) has ended. */
void am_pace_saved(am_pace *pace, double started);

#endif
