/* When to save state next: so rarely that all saves together are expected to take no more than 2 %
 * of the time since the start. A save is due when what was saved and one more, which takes what
 * they took on average, fit into that. What the first will take is guessed from its bytes. A sync
 * takes seconds when others use the disk: so the first comes after half a minute, and one that took
 * long is made up for before the next. A shorter job saves only when it is asked to stop. Local and
 * pure but for the clock: where ranks save together, one of them decides for all.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_PACE_H
#define AM_MPI_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    AM_PACE_COSTS = 50,          /* the time since the start: at least so many times all saves */
    AM_PACE_LEAST_SECONDS = 30,  /* between two saves: at least this, */
    AM_PACE_MOST_SECONDS = 1800, /* ... but never more than this, whatever they cost */
    AM_PACE_FIRST_SPEED = 100000000, /* bytes a second that the first save is expected to write */
};
/* As `every` of am_pace_start: by the rule above. */
#define AM_PACE_AUTO (-1.0)

typedef struct am_pace {
    double every;       /* seconds; negative: by the rule above */
    double began, last; /* the start, and the end of the last save, by am_seconds */
    double expected;    /* what the first save may take; seconds */
    double total;       /* what all saves took; seconds */
    int64_t saves;      /* so many */
} am_pace;

/** Begin now. every: seconds between saves, 0: at every opportunity, AM_PACE_AUTO: by their cost.
 */
void am_pace_start(am_pace *pace, double every);
/** The first save is going to write so many bytes. */
void am_pace_expect(am_pace *pace, int64_t bytes);
bool am_pace_is_due(const am_pace *pace);
/** A save that began at `started` (am_seconds) has ended. */
void am_pace_saved(am_pace *pace, double started);
/** Tell what saving has taken since the start, if anything was saved: "NAME: 3 saves took 0.2 s of
 * 31.4 s (0.64 %)". Printed by rank 0 of the job, of its own. */
void am_pace_tell(const am_pace *pace, const char *name);

#endif
