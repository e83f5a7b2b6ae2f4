/* Slots in order of use, and a hash table from page to slot:
 *
 *     bucket[hash(page)] ──> slot ──chain──> slot        newest ──older──> ... ──older──> oldest
 *
 * A slot that is being filled, or that the owner holds, is not given away. Each of the two threads
 * fills at most one, so with AM_PAGES_FEWEST slots there is always one to give.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/pages.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"

enum { NONE = -1 };

typedef struct slot {
    int64_t page; /* NONE: empty */
    int64_t newer, older, chain;
    bool is_filling;
} slot;

struct am_pages {
    am_page_source source;
    pthread_mutex_t lock;
    pthread_cond_t filled, announced;
    pthread_t reader;
    bool has_reader, is_ending;

    /* under the lock */
    slot *slot;      /* [n] owned */
    int64_t *bucket; /* [n_buckets] owned: first slot of a chain */
    int64_t n, n_buckets, newest, oldest, held;
    int64_t *queue; /* [n / 2] owned: announced pages, ascending */
    int64_t next, end;
    am_page_counts counts;

    unsigned char *bytes; /* [n][page_bytes] owned */
};

/* ---- order of use ---- */

static void take_out(am_pages *p, int64_t s)
{
    const int64_t newer = p->slot[s].newer, older = p->slot[s].older;
    *(newer == NONE ? &p->newest : &p->slot[newer].older) = older;
    *(older == NONE ? &p->oldest : &p->slot[older].newer) = newer;
}

static void put_first(am_pages *p, int64_t s)
{
    p->slot[s].newer = NONE;
    p->slot[s].older = p->newest;
    *(p->newest == NONE ? &p->oldest : &p->slot[p->newest].newer) = s;
    p->newest = s;
}

static void touch(am_pages *p, int64_t s)
{
    if (p->newest != s) {
        take_out(p, s);
        put_first(p, s);
    }
}

/* ---- page to slot ---- */

static int64_t *bucket_of(const am_pages *p, int64_t page)
{
    const uint64_t mixed = (uint64_t)page * UINT64_C(0x9e3779b97f4a7c15);
    return &p->bucket[(mixed >> 32) % (uint64_t)p->n_buckets];
}

static int64_t find(const am_pages *p, int64_t page)
{
    int64_t s = *bucket_of(p, page);
    while (s != NONE && p->slot[s].page != page) {
        s = p->slot[s].chain;
    }
    return s;
}

static void forget(am_pages *p, int64_t s)
{
    int64_t *at = bucket_of(p, p->slot[s].page);
    while (*at != s) {
        at = &p->slot[*at].chain;
    }
    *at = p->slot[s].chain;
    p->slot[s].page = NONE;
}

/* The oldest slot that can be given away, for a page that is not in memory. */
static int64_t claim(am_pages *p, int64_t page)
{
    int64_t s = p->oldest;
    while (p->slot[s].is_filling || s == p->held) {
        s = p->slot[s].newer;
    }
    if (p->slot[s].page != NONE) {
        forget(p, s);
    }
    int64_t *at = bucket_of(p, page);
    p->slot[s].page = page;
    p->slot[s].chain = *at;
    p->slot[s].is_filling = true;
    *at = s;
    touch(p, s);
    return s;
}

/* Fetch a page into a new slot, without the lock meanwhile. On error the slot is empty again. */
static int fill(am_pages *p, int64_t page, int64_t *to)
{
    const int64_t s = claim(p, page);
    (void)pthread_mutex_unlock(&p->lock);
    const int rc = p->source.fetch(p->source.self, page, p->bytes + s * p->source.page_bytes);
    (void)pthread_mutex_lock(&p->lock);
    p->slot[s].is_filling = false;
    if (rc != 0) {
        forget(p, s);
    }
    (void)pthread_cond_broadcast(&p->filled);
    *to = s;
    return rc;
}

/* ---- the reader thread ---- */

static void *read_ahead(void *data)
{
    am_pages *p = data;
    int64_t s;
    (void)pthread_mutex_lock(&p->lock);
    while (!p->is_ending) {
        if (p->next == p->end) {
            (void)pthread_cond_wait(&p->announced, &p->lock);
            continue;
        }
        const int64_t page = p->queue[p->next++];
        s = find(p, page);
        if (s != NONE) {
            touch(p, s);
        } else if (fill(p, page, &s) == 0) {
            p->counts.ahead++;
        } else {
            am_error_clear(); /* the owner meets it, if it asks for the page */
        }
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Without a reader everything works, a little later. */
static void start_reader(am_pages *p)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals go to the main thread */
    p->has_reader = pthread_create(&p->reader, NULL, read_ahead, p) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int by_number(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void am_pages_announce(am_pages *p, const int64_t *page, int64_t n)
{
    if (!p->has_reader) {
        start_reader(p);
    }
    (void)pthread_mutex_lock(&p->lock);
    p->next = p->end = 0;
    for (int64_t i = 0; i < n && p->end < p->n / 2; i++) {
        if (p->source.may_read_ahead(p->source.self, page[i])) {
            p->queue[p->end++] = page[i];
        }
    }
    qsort(p->queue, (size_t)p->end, sizeof *p->queue, by_number); /* as they lie in the file */
    (void)pthread_cond_signal(&p->announced);
    (void)pthread_mutex_unlock(&p->lock);
}

/* ---- the owner ---- */

int am_pages_get(am_pages *p, int64_t page, const void **bytes)
{
    int rc = 0;
    (void)pthread_mutex_lock(&p->lock);
    p->held = NONE;
    p->counts.asked++;
    int64_t s = find(p, page);
    p->counts.missed += s == NONE || p->slot[s].is_filling;
    while (s != NONE && p->slot[s].is_filling) {
        (void)pthread_cond_wait(&p->filled, &p->lock);
        s = find(p, page);
    }
    if (s != NONE) {
        touch(p, s);
    } else {
        rc = fill(p, page, &s);
    }
    p->held = rc == 0 ? s : NONE;
    (void)pthread_mutex_unlock(&p->lock);
    *bytes = rc == 0 ? p->bytes + s * p->source.page_bytes : NULL;
    return rc;
}

am_page_counts am_pages_counts(am_pages *p)
{
    (void)pthread_mutex_lock(&p->lock);
    const am_page_counts counts = p->counts;
    (void)pthread_mutex_unlock(&p->lock);
    return counts;
}

/* ---- make and free ---- */

int am_pages_make(const am_page_source *source, int64_t bytes, am_pages **out)
{
    am_pages *p = am_new(1, sizeof *p, "pages of a data set");
    *out = NULL;
    if (p == NULL) {
        return AM_E_NOMEM;
    }
    p->source = *source;
    p->n = bytes / source->page_bytes;
    AM_ASSERT(p->n >= AM_PAGES_FEWEST);
    p->n_buckets = 2 * p->n + 1;
    p->slot = am_new(p->n, sizeof *p->slot, "pages of a data set");
    p->bucket = am_new(p->n_buckets, sizeof *p->bucket, "pages of a data set");
    p->queue = am_new(p->n / 2, sizeof *p->queue, "pages of a data set");
    p->bytes = am_new(p->n, (size_t)source->page_bytes, "pages of a data set");
    if (p->slot == NULL || p->bucket == NULL || p->queue == NULL || p->bytes == NULL ||
        pthread_mutex_init(&p->lock, NULL) != 0 || pthread_cond_init(&p->filled, NULL) != 0 ||
        pthread_cond_init(&p->announced, NULL) != 0) {
        free(p->slot);
        free(p->bucket);
        free(p->queue);
        free(p->bytes);
        free(p);
        return am_fail(AM_E_NOMEM, "no memory for pages of a data set");
    }
    p->newest = p->oldest = p->held = NONE;
    for (int64_t i = 0; i < p->n_buckets; i++) {
        p->bucket[i] = NONE;
    }
    for (int64_t s = 0; s < p->n; s++) {
        p->slot[s].page = NONE;
        put_first(p, s);
    }
    *out = p;
    return 0;
}

void am_pages_free(am_pages **pages)
{
    am_pages *p = *pages;
    if (p == NULL) {
        return;
    }
    if (p->has_reader) {
        (void)pthread_mutex_lock(&p->lock);
        p->is_ending = true;
        (void)pthread_cond_signal(&p->announced);
        (void)pthread_mutex_unlock(&p->lock);
        (void)pthread_join(p->reader, NULL);
    }
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_cond_destroy(&p->filled);
    (void)pthread_cond_destroy(&p->announced);
    free(p->slot);
    free(p->bucket);
    free(p->queue);
    free(p->bytes);
    free(p);
    *pages = NULL;
}
