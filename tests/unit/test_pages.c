/* The cache of pages: whatever is announced, and however little fits, a page has its own bytes; no
 * page is fetched twice while it is in memory; errors reach the owner and nobody else.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include "tests/am_test.h"
#include "io/dataset/pages.h"
#include "mpi/error.h"
#include "mpi/rng.h"

enum { PAGES = 500, BYTES = 256, BAD = 77, MAIN_ONLY = 5 };

typedef struct am_store {
    pthread_t owner;
    atomic_int fetched, by_owner, at_once, together;
    atomic_int times[PAGES];
} am_store;

static unsigned char byte_of(int64_t page, int i)
{
    return (unsigned char)(page * 31 + i * 7 + (page >> 3));
}

static bool may_read_ahead(const void *self, int64_t page)
{
    (void)self;
    return page % 10 != MAIN_ONLY;
}

static int fetch(void *self, int64_t page, void *to)
{
    am_store *s = self;
    const bool is_owner = pthread_equal(pthread_self(), s->owner) != 0;
    const int now = atomic_fetch_add(&s->at_once, 1) + 1;
    if (now > atomic_load(&s->together)) {
        atomic_store(&s->together, now);
    }
    for (int i = 0; i < BYTES; i++) {
        ((unsigned char *)to)[i] = byte_of(page, i);
    }
    if (page % 3 == 0) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    AM_CHECK(is_owner || may_read_ahead(s, page));
    atomic_fetch_add(&s->fetched, 1);
    atomic_fetch_add(&s->by_owner, is_owner);
    atomic_fetch_add(&s->times[page], 1);
    atomic_fetch_sub(&s->at_once, 1);
    return page == BAD ? am_fail(AM_E_IO, "page %d is bad", BAD) : 0;
}

static am_page_source source_of(am_store *store)
{
    *store = (am_store){.owner = pthread_self()};
    return (am_page_source){
        .self = store, .page_bytes = BYTES, .fetch = fetch, .may_read_ahead = may_read_ahead};
}

static void check_page(am_pages *pages, int64_t page)
{
    const void *bytes = NULL;
    const int rc = am_pages_get(pages, page, &bytes);
    if (page == BAD) {
        AM_CHECK_I64(rc, AM_E_IO);
        AM_CHECK_TEXT(am_error_message(), "page 77 is bad");
        am_error_clear();
        return;
    }
    bool is_same = AM_CHECK_OK(rc);
    for (int i = 0; is_same && i < BYTES; i++) {
        is_same = ((const unsigned char *)bytes)[i] == byte_of(page, i);
    }
    AM_CHECK(is_same);
}

/* Batches of random pages, of most of which the reader hears: some, all, others, none. */
static void walk(int64_t slots, int rounds)
{
    am_store store;
    am_pages *pages = NULL;
    const am_page_source source = source_of(&store);
    const am_rng rng = am_rng_make(am_test_seed(), "pages", 0, slots, "walk");
    int64_t batch[64], asked = 0;
    if (!AM_CHECK_OK(am_pages_make(&source, slots * BYTES + BYTES / 2, &pages))) {
        return;
    }
    for (int r = 0; r < rounds; r++) {
        const int n = (int)(am_rng_uniform(&rng, 1000 * r) * 64) + 1;
        for (int i = 0; i < n; i++) {
            batch[i] = (int64_t)(am_rng_uniform(&rng, 1000 * r + i + 1) * PAGES);
        }
        if (r % 4 != 3) {
            am_pages_announce(pages, batch, r % 4 == 2 ? n / 2 : n);
        }
        for (int i = r % 5 == 4 ? n / 3 : 0; i < n; i++) {
            check_page(pages, batch[i]);
            asked++;
        }
    }
    const am_page_counts counts = am_pages_counts(pages);
    AM_CHECK_I64(counts.asked, asked);
    AM_CHECK(counts.missed <= counts.asked);
    AM_CHECK(counts.ahead > 0);
    am_pages_free(&pages);
    AM_CHECK(pages == NULL);
    AM_CHECK(atomic_load(&store.together) <= 2);
}

static void test_any_order_gives_the_bytes_of_the_page(void)
{
    walk(AM_PAGES_FEWEST, 600);
    walk(40, 600);
    walk(PAGES + 10, 300);
}

static void test_a_page_is_fetched_once_while_it_is_kept(void)
{
    am_store store;
    am_pages *pages = NULL;
    const am_page_source source = source_of(&store);
    int64_t all[PAGES];
    AM_CHECK_OK(am_pages_make(&source, (2 * PAGES + 2) * (int64_t)BYTES, &pages));
    for (int i = 0; i < PAGES; i++) {
        all[i] = PAGES - 1 - i;
    }
    am_pages_announce(pages, all, PAGES);
    for (int twice = 0; twice < 2; twice++) {
        for (int i = 0; i < PAGES; i++) {
            check_page(pages, all[i]);
        }
    }
    for (int i = 0; i < PAGES; i++) {
        AM_CHECK(i == BAD || atomic_load(&store.times[i]) == 1);
    }
    am_pages_free(&pages);
}

/* The oldest goes first: of a sweep over one page more than fit, all are missed; a page in constant
 * use stays. */
static void test_the_least_recently_used_page_makes_room(void)
{
    am_store store;
    am_pages *pages = NULL;
    const am_page_source source = source_of(&store);
    AM_CHECK_OK(am_pages_make(&source, 8 * BYTES, &pages));
    for (int i = 0; i < 60; i++) {
        check_page(pages, 100 + i);
        check_page(pages, 3);
    }
    AM_CHECK_I64(atomic_load(&store.times[3]), 1);
    check_page(pages, 159);
    check_page(pages, 153);
    AM_CHECK_I64(atomic_load(&store.fetched), 61);
    check_page(pages, 152);
    AM_CHECK_I64(atomic_load(&store.fetched), 62);
    AM_CHECK_I64(am_pages_counts(pages).missed, 62);
    am_pages_free(&pages);
}

/* What is announced is there before it is asked for, given time. */
static void test_announced_pages_are_read_ahead(void)
{
    am_store store;
    am_pages *pages = NULL;
    const am_page_source source = source_of(&store);
    const int64_t batch[] = {9, 1, 9, 2, 15, BAD, 3};
    AM_CHECK_OK(am_pages_make(&source, 40 * BYTES, &pages));
    am_pages_announce(pages, batch, 7);
    for (int i = 0; i < 5000 && atomic_load(&store.fetched) < 5; i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    AM_CHECK_I64(atomic_load(&store.by_owner), 0);
    for (int i = 0; i < 7; i++) {
        check_page(pages, batch[i]);
    }
    AM_CHECK_I64(am_pages_counts(pages).ahead, 4);
    AM_CHECK_I64(atomic_load(&store.by_owner), 2); /* 15, and the bad one again */
    am_pages_free(&pages);
}

static const am_test tests[] = {
    AM_TEST(test_any_order_gives_the_bytes_of_the_page),
    AM_TEST(test_a_page_is_fetched_once_while_it_is_kept),
    AM_TEST(test_the_least_recently_used_page_makes_room),
    AM_TEST(test_announced_pages_are_read_ahead),
};
AM_TEST_MAIN("pages", tests)
