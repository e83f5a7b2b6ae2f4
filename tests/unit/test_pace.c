/* When a save is due: by its interval, or so that all saves take 2 % of the time at most. The clock
 * is not turned; the start of a pace is put into the past. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/clock.h"
#include "mpi/pace.h"
#include "tests/am_test.h"

/* A pace that began `ago` seconds ago and has made `saves` saves of `cost` seconds each, the last
 * of which ended `since` seconds ago. */
static am_pace pace_of(double every, double ago, int64_t saves, double cost, double since)
{
    const double now = am_seconds();
    return (am_pace){.every = every,
                     .began = now - ago,
                     .last = now - since,
                     .total = (double)saves * cost,
                     .saves = saves};
}

static bool is_due(am_pace pace)
{
    return am_pace_is_due(&pace);
}

static void interval(void)
{
    am_pace pace;
    am_pace_start(&pace, 0);
    AM_CHECK(am_pace_is_due(&pace));
    am_pace_start(&pace, 1000);
    AM_CHECK(!am_pace_is_due(&pace));
    AM_CHECK(!is_due(pace_of(10, 9000, 3, 100, 9)));
    AM_CHECK(is_due(pace_of(10, 9000, 3, 100, 10.1))); /* whatever it costs */
}

static void share(void)
{
    am_pace first = pace_of(AM_PACE_AUTO, 40, 0, 0, 40);
    AM_CHECK(is_due(first));
    am_pace_expect(&first, AM_PACE_FIRST_SPEED); /* 1 s */
    AM_CHECK(!is_due(first));
    first.began = am_seconds() - 51;
    AM_CHECK(is_due(first));
    AM_CHECK(!is_due(pace_of(AM_PACE_AUTO, 29, 0, 0, 29)));   /* at least 30 s */
    AM_CHECK(!is_due(pace_of(AM_PACE_AUTO, 190, 1, 2, 100))); /* 2 saves of 2 s: not before 200 s */
    AM_CHECK(is_due(pace_of(AM_PACE_AUTO, 201, 1, 2, 100)));
    AM_CHECK(!is_due(pace_of(AM_PACE_AUTO, 1490, 9, 3, 1000))); /* 10 of 3 s: not before 1,500 */
    AM_CHECK(is_due(pace_of(AM_PACE_AUTO, 1501, 9, 3, 30.1)));
    AM_CHECK(
        is_due(pace_of(AM_PACE_AUTO, 2000, 1, 500, 1801))); /* never longer than half an hour */
}

static void saved(void)
{
    am_pace pace;
    am_pace_start(&pace, AM_PACE_AUTO);
    pace.began -= 100;
    am_pace_saved(&pace, am_seconds() - 1);
    am_pace_saved(&pace, am_seconds() - 3);
    AM_CHECK(pace.saves == 2 && pace.total > 3.99 && pace.total < 4.5);
    AM_CHECK(!am_pace_is_due(&pace));
    pace.last -= 31;
    AM_CHECK(!am_pace_is_due(&pace)); /* 4 s and 2 s more in 110 s */
    pace.began -= 250;
    AM_CHECK(am_pace_is_due(&pace));
}

static const am_test tests[] = {
    AM_TEST(interval),
    AM_TEST(share),
    AM_TEST(saved),
};
AM_TEST_MAIN("pace", tests)
