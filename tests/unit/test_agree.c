/* Errors and agreement: each rank failing in turn gives the same code, message and outcome on all.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/runtime.h"
#include "tests/am_test.h"

static void first_message_is_kept(void)
{
    AM_CHECK_TEXT(am_error_message(), "");
    AM_CHECK_I64(am_fail(AM_E_DATA, "file %s: bad", "x.h5"), AM_E_DATA);
    AM_CHECK_I64(am_fail(AM_E_IO, "later"), AM_E_IO);
    AM_CHECK_I64(am_fail_errno(AM_E_IO, EIO, "later still"), AM_E_IO);
    AM_CHECK_TEXT(am_error_message(), "file x.h5: bad");
    am_error_clear();
    AM_CHECK_I64(am_fail_errno(AM_E_NOINPUT, ENOENT, "cannot open %s", "y"), AM_E_NOINPUT);
    AM_CHECK_TEXT(am_error_message(), "cannot open y: No such file or directory");
    am_error_set("replaced");
    AM_CHECK_TEXT(am_error_message(), "replaced");
    char longer[2 * AM_MESSAGE_BYTES];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    am_error_set(longer);
    AM_CHECK_I64(strlen(am_error_message()), AM_MESSAGE_BYTES - 1);
    am_error_clear();
    (void)am_fail_errno(AM_E_IO, EIO, "%s", longer); /* no room for the reason: cut, not overrun */
    AM_CHECK_I64(strlen(am_error_message()), AM_MESSAGE_BYTES - 1);
}

static void exit_codes(void)
{
    static const int codes[][2] = {{AM_OK, 0},         {AM_E_USAGE, 2},    {AM_E_RECIPE, 2},
                                   {AM_E_DATA, 65},    {AM_E_NOINPUT, 66}, {AM_E_BUG, 70},
                                   {AM_E_NOMEM, 71},   {AM_E_CREATE, 73},  {AM_E_IO, 74},
                                   {AM_E_STOPPED, 75}, {AM_E_NUMERIC, 76}, {AM_E_STALLED, 124},
                                   {-999, 70}};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        AM_CHECK_I64(am_error_exit_code(codes[i][0]), codes[i][1]);
        AM_CHECK(strlen(am_error_text(codes[i][0])) > 1);
    }
}

/* Every rank fails in turn at some step, others at later ones; ranks are ahead of each other. */
static void steps_ahead_all(void)
{
    enum { STEPS = 3 * AM_AGREE_AHEAD };
    static const int fails[] = {0, 1, AM_AGREE_AHEAD, STEPS - 2, STEPS - 1, STEPS};
    for (size_t f = 0; f < sizeof fails / sizeof fails[0]; f++) {
        am_agree_queue queue = {0};
        const int origin = (int)f % am_world_size();
        const int own = am_world_rank() == origin ? fails[f] : fails[f] + 3;
        int rc = 0, step = 0;
        char expected[64];
        (void)snprintf(expected, sizeof expected, "step %d of w%d", fails[f], origin);
        am_error_clear();
        for (; rc == 0 && step < STEPS; step++) {
            if (am_world_rank() == step / AM_AGREE_AHEAD % am_world_size()) {
                const struct timespec pause = {.tv_nsec = 200000};
                (void)nanosleep(&pause, NULL);
            }
            rc = step == own ? am_fail(AM_E_DATA, "step %d of w%d", step, am_world_rank()) : 0;
            rc = am_agree_ahead_all(am_world(), &queue, rc);
        }
        rc = rc != 0 ? rc : am_agree_finish_all(am_world(), &queue);
        AM_CHECK_I64(rc, fails[f] < STEPS ? AM_E_DATA : 0);
        AM_CHECK_TEXT(am_error_message(), fails[f] < STEPS ? expected : "");
        AM_CHECK(rc == 0 || step <= fails[f] + AM_AGREE_AHEAD);
        AM_CHECK(rc == 0 || am_world_rank() != origin || step == fails[f] + 1);
        am_error_clear();
        AM_CHECK_OK(am_agree_all(am_world(), 0)); /* nothing was left behind */
    }
}

static void each_rank_fails_all(void)
{
    for (int origin = 0; origin < am_world_size(); origin++) {
        int rc = 0;
        char expected[64];
        (void)snprintf(expected, sizeof expected, "tensor w%d is bad", origin);
        am_error_clear();
        if (am_world_rank() == origin) {
            rc = am_fail(AM_E_DATA, "tensor w%d is bad", origin);
        }
        AM_CHECK_CODE(am_agree_all(am_world(), rc), AM_E_DATA);
        AM_CHECK_TEXT(am_error_message(), expected);
        am_error_clear();
        AM_CHECK_OK(am_agree_all(am_world(), 0));
    }
}

/* Several failures: the smallest code, of it the lowest rank. */
static void many_ranks_fail_all(void)
{
    int rank = am_world_rank(), size = am_world_size();
    char expected[64];
    int rc =
        rank == 0 && size > 1 ? am_fail(AM_E_DATA, "rank 0") : am_fail(AM_E_IO, "rank %d", rank);
    AM_CHECK_CODE(am_agree_all(am_world(), rc), AM_E_IO);
    (void)snprintf(expected, sizeof expected, "rank %d", size > 1 ? 1 : 0);
    AM_CHECK_TEXT(am_error_message(), expected);
}

/* The shape of STYLE A.3: a local step fails on one rank, all leave with its code. */
static int three_steps_all(int origin, int step, int *done)
{
    int rc = 0;
    *done = 0;
    for (int s = 0; s < 3; s++) {
        bool fails = am_world_rank() == origin && s == step;
        AM_KEEP(fails ? am_fail(AM_E_NOMEM, "step %d", s) : 0);
        AM_AGREE(am_world());
        ++*done;
    }
cleanup:
    return rc;
}

static void steps_stop_together_all(void)
{
    for (int origin = 0; origin < am_world_size(); origin++) {
        for (int step = 0; step < 3; step++) {
            int done = 0;
            am_error_clear();
            AM_CHECK_CODE(three_steps_all(origin, step, &done), AM_E_NOMEM);
            AM_CHECK_I64(done, step);
        }
    }
    int done = 0;
    am_error_clear();
    AM_CHECK_OK(three_steps_all(-1, 0, &done));
    AM_CHECK_I64(done, 3);
}

static void same_arguments_all(void)
{
    AM_CHECK_OK(am_same_all(am_world(), 42, "the recipe"));
    AM_CHECK_OK(am_same_all(am_world(), 0, "the recipe"));
    AM_CHECK_OK(am_same_all(am_world(), UINT64_MAX, "the recipe"));
    for (int odd = 0; odd < am_world_size() && am_world_size() > 1; odd++) {
        uint64_t hash = am_world_rank() == odd ? 1 : UINT64_C(1) << 63;
        AM_CHECK_CODE(am_same_all(am_world(), hash, "the recipe"), AM_E_BUG);
        AM_CHECK_TEXT(am_error_message(), "the recipe differs between ranks");
        am_error_clear();
    }
}

static char *make_bytes(int64_t n)
{
    char *bytes = am_new(n + 1, 1, "bytes");
    for (int64_t i = 0; bytes != NULL && i < n; i++) {
        bytes[i] = (char)(i * 31 + 7);
    }
    return bytes;
}

static void shared_bytes_all(void)
{
    static const int64_t lengths[] = {0, 1, 100000};
    for (int root = 0; root < am_world_size(); root++) {
        for (int i = 0; i < 3; i++) {
            int64_t n = am_world_rank() == root ? lengths[i] : -1;
            char *bytes = am_world_rank() == root ? make_bytes(n) : NULL;
            char *expected = make_bytes(lengths[i]);
            AM_CHECK_OK(am_share_bytes_all(am_world(), root, 0, &bytes, &n));
            AM_CHECK_I64(n, lengths[i]);
            AM_CHECK(bytes != NULL && memcmp(bytes, expected, (size_t)n + 1) == 0);
            free(bytes);
            free(expected);
        }
        char *bytes = NULL;
        int64_t n = 0;
        int rc = am_world_rank() == root ? am_fail(AM_E_NOINPUT, "no recipe r.yml") : 0;
        AM_CHECK_CODE(am_share_bytes_all(am_world(), root, rc, &bytes, &n), AM_E_NOINPUT);
        AM_CHECK_TEXT(am_error_message(), "no recipe r.yml");
        AM_CHECK(bytes == NULL && n == 0);
        am_error_clear();
    }
}

/* Last: a stop request cannot be taken back. */
static void stop_request_all(void)
{
    int last = am_world_size() - 1;
    AM_CHECK_OK(am_agree_step_all(am_world(), 0));
    if (am_world_rank() == last) {
        am_request_stop();
    }
    AM_CHECK(am_stop_requested() == (am_world_rank() == last));
    AM_CHECK_OK(am_agree_all(am_world(), 0)); /* not at a safe point: nothing happens */
    AM_CHECK_CODE(am_agree_step_all(am_world(), 0), AM_E_STOPPED);
    AM_CHECK_CONTAINS(am_error_message(), "a request");
    am_error_clear();
    int rc = am_world_rank() == 0 ? am_fail(AM_E_IO, "disk") : 0;
    AM_CHECK_CODE(am_agree_step_all(am_world(), rc), AM_E_IO); /* an error is not hidden */
    AM_CHECK_TEXT(am_error_message(), "disk");
}

static const am_test tests[] = {
    AM_TEST(first_message_is_kept),   AM_TEST(exit_codes),
    AM_TEST(each_rank_fails_all),     AM_TEST(many_ranks_fail_all),
    AM_TEST(steps_stop_together_all), AM_TEST(same_arguments_all),
    AM_TEST(steps_ahead_all),         AM_TEST(shared_bytes_all),
    AM_TEST(stop_request_all),
};
AM_TEST_MAIN("agree", tests)
