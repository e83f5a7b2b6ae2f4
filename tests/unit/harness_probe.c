/* A test that fails on one rank only, or not: for the test of the harness.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/runtime.h"
#include "tests/am_test.h"

static void good_all(void)
{
    AM_CHECK(true);
    AM_CHECK_OK(am_agree_all(am_world(), 0));
}

/* The rank named by PROBE_RANK fails a check and goes on to the collective call. */
static void fails_on_one_rank_all(void)
{
    const char *rank = getenv("PROBE_RANK");
    AM_CHECK_I64(am_world_rank() == (rank != NULL ? atoi(rank) : -1), 0);
    AM_CHECK_OK(am_agree_all(am_world(), 0));
}

static const am_test tests[] = {
    AM_TEST(good_all),
    AM_TEST(fails_on_one_rank_all),
    AM_TEST(good_all),
};
AM_TEST_MAIN("harness", tests)
