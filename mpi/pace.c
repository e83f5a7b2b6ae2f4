/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/pace.h"

#include <inttypes.h>
#include "mpi/clock.h"
#include "mpi/log.h"

void am_pace_start(am_pace *pace, double every)
{
    const double now = am_seconds();
    *pace = (am_pace){.every = every, .began = now, .last = now};
}

void am_pace_expect(am_pace *pace, int64_t bytes)
{
    pace->expected = (double)bytes / AM_PACE_FIRST_SPEED;
}

bool am_pace_is_due(const am_pace *pace)
{
    const double now = am_seconds(), since = now - pace->last;
    const double next = pace->saves > 0 ? pace->total / (double)pace->saves : pace->expected;
    if (pace->every >= 0) {
        return since >= pace->every;
    }
    return since >= AM_PACE_MOST_SECONDS ||
           (since >= AM_PACE_LEAST_SECONDS &&
            now - pace->began >= AM_PACE_COSTS * (pace->total + next));
}

void am_pace_saved(am_pace *pace, double started)
{
    pace->last = am_seconds();
    pace->total += pace->last - started;
    pace->saves++;
}

void am_pace_tell(const am_pace *pace, const char *name)
{
    const double seconds = am_seconds() - pace->began;
    if (pace->saves > 0) {
        am_info("%s: %" PRId64 " saves took %.2f s of %.2f s (%.2f %%)", name, pace->saves,
                pace->total, seconds, 100 * pace->total / seconds);
    }
}
