/* Exchange, gather and broadcast of any size, with messages cut into pieces; events of a run.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/log.h"
#include "mpi/runtime.h"
#include "tests/am_test.h"

enum { MOST_RANKS = 16, ROOM = 1 << 16 };
static unsigned char outbox[ROOM], inbox[ROOM];

/* Bytes that rank a sends to rank b: uneven, some none; 0 also on the diagonal of rank 1. */
static int64_t length(int a, int b)
{
    return (a * 7 + b * 3) % 5 == 0 ? 0 : 100 * a + 37 * b + 1;
}

static unsigned char content(int a, int b, int64_t i)
{
    return (unsigned char)(a * 50 + b * 11 + i);
}

static void exchange_all(void)
{
    int me = am_world_rank(), size = am_world_size();
    int64_t out_at[MOST_RANKS], in_at[MOST_RANKS], out[MOST_RANKS], in[MOST_RANKS];
    int64_t at = 5, to = 9, wrong = 0;
    AM_CHECK(size <= MOST_RANKS);
    memset(inbox, 0xcc, sizeof inbox);
    for (int r = 0; r < size; r++) {
        out[r] = length(me, r);
        in[r] = length(r, me);
        out_at[r] = at;
        in_at[r] = to;
        for (int64_t i = 0; i < out[r]; i++) {
            outbox[at + i] = content(me, r, i);
        }
        at += out[r];
        to += in[r] + 3; /* gaps stay untouched */
    }
    AM_CHECK_OK(am_exchange_all(am_world(), outbox, out, out_at, inbox, in, in_at));
    for (int r = 0; r < size; r++) {
        for (int64_t i = 0; i < in[r]; i++) {
            wrong += inbox[in_at[r] + i] != content(r, me, i);
        }
        wrong += inbox[in_at[r] + in[r]] != 0xcc;
    }
    AM_CHECK_I64(wrong, 0);
}

static void gather_all(void)
{
    int me = am_world_rank(), size = am_world_size();
    int64_t bytes[MOST_RANKS], at[MOST_RANKS], next = 1, wrong = 0;
    memset(inbox, 0xcc, sizeof inbox);
    for (int r = 0; r < size; r++) {
        bytes[r] = length(r, 1);
        at[r] = next;
        next += bytes[r] + 2;
    }
    for (int64_t i = 0; i < bytes[me]; i++) {
        inbox[at[me] + i] = content(me, 1, i);
    }
    AM_CHECK_OK(am_gather_all(am_world(), inbox, bytes, at));
    for (int r = 0; r < size; r++) {
        for (int64_t i = 0; i < bytes[r]; i++) {
            wrong += inbox[at[r] + i] != content(r, 1, i);
        }
        wrong += inbox[at[r] + bytes[r]] != 0xcc;
    }
    AM_CHECK_I64(wrong, 0);
}

static void broadcast_all(void)
{
    for (int root = 0; root < am_world_size(); root++) {
        int64_t wrong = 0;
        memset(inbox, am_world_rank() == root ? root + 1 : 0, sizeof inbox);
        AM_CHECK_OK(am_bcast_all(am_world(), root, inbox, 1001));
        for (int64_t i = 0; i < 1002; i++) {
            int expected = i < 1001 || am_world_rank() == root ? root + 1 : 0;
            wrong += inbox[i] != expected;
        }
        AM_CHECK_I64(wrong, 0);
    }
}

static void in_pieces_all(void)
{
    static const int64_t limits[] = {1, 7, 64, 1000};
    for (int i = 0; i < 4; i++) {
        am_bigcount_set_limit(limits[i]); /* at 1: far more pieces than requests in the window */
        exchange_all();
        gather_all();
        broadcast_all();
    }
    am_bigcount_set_limit((int64_t)1 << 30);
}

static void narrowing(void)
{
    AM_CHECK_I64(am_int(INT32_MAX), INT32_MAX);
    AM_CHECK_I64(am_int(INT32_MIN), INT32_MIN);
    AM_CHECK_OK(am_mpi_code(MPI_SUCCESS, "MPI_Send"));
    AM_CHECK_CODE(am_mpi_code(MPI_ERR_COUNT, "MPI_Send"), AM_E_BUG);
    AM_CHECK_CONTAINS(am_error_message(), "MPI_Send failed: MPI_ERR_COUNT");
}

/* Events go to one file from rank 0 only, each line whole, across two openings. */
static void events_all(void)
{
    const char *path = am_test_path("events.jsonl");
    for (int opening = 0; opening < 2; opening++) {
        am_json members = {0};
        am_json_real(&members, "loss", 0.5);
        AM_CHECK_OK(am_events_open(path));
        am_event("step", &members);
        am_event("end", NULL);
        am_events_close();
        am_json_free(&members);
    }
    am_event("late", NULL); /* no file: nothing */
    AM_CHECK_OK(am_agree_all(am_world(), 0));
    FILE *file = fopen(path, "r");
    char line[256];
    int lines = 0;
    for (; file != NULL && fgets(line, sizeof line, file) != NULL; lines++) {
        AM_CHECK_CONTAINS(line, lines % 2 == 0 ? "{\"event\":\"step\",\"seconds\":"
                                               : "{\"event\":\"end\",\"seconds\":");
        AM_CHECK_CONTAINS(line, lines % 2 == 0 ? ",\"loss\":0.5}\n" : "}\n");
    }
    AM_CHECK_I64(lines, 4);
    if (file != NULL) {
        (void)fclose(file);
    }
    bool is_first = am_world_rank() == 0;
    AM_CHECK_CODE(am_events_open(am_test_path("no/such/folder")), is_first ? AM_E_CREATE : 0);
}

static const am_test tests[] = {
    AM_TEST(exchange_all),  AM_TEST(gather_all), AM_TEST(broadcast_all),
    AM_TEST(in_pieces_all), AM_TEST(narrowing),  AM_TEST(events_all),
};
AM_TEST_MAIN("bigcount", tests)
