/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/pace.h"

#include "mpi/clock.h"

void am_pace_start(am_pace *pace, double every)
{
    *pace = (am_pace){.every = every, .last = am_seconds()};
}

static double interval(const am_pace *pace)
{
    const double rule = AM_PACE_COSTS * pace->cost;
    if (pace->every >= 0) {
        return pace->every;
    }
    return rule < AM_PACE_LEAST_SECONDS  ? AM_PACE_LEAST_SECONDS
           : rule > AM_PACE_MOST_SECONDS ? AM_PACE_MOST_SECONDS
                                         : rule;
}

bool am_pace_is_due(const am_pace *pace)
{
    return am_seconds() - pace->last >= interval(pace);
}

void am_pace_saved(am_pace *pace, double started)
{
    pace->last = am_seconds();
    pace->cost = pace->last - started;
    pace->total += pace->cost;
}
