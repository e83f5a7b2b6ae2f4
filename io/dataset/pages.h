/* A bounded cache of pages with a thread that reads ahead. One thread owns it and asks for pages
 * one after the other; what the owner announces is fetched by a reader thread meanwhile, as far as
 * there is room. The least recently used page makes room. Whatever is in memory when, the owner
 * gets the same bytes. Local. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_PAGES_H
#define AM_IO_DATASET_PAGES_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_pages am_pages;

typedef struct am_page_source {
    void *self;
    int64_t page_bytes; /* of the largest page */
    /* Page `page` into `to` [page_bytes]. The reader thread and the owner may call it at once, for
     * different pages. */
    int (*fetch)(void *self, int64_t page, void *to);
    /* Whether the reader thread may fetch the page. Pure. */
    bool (*may_read_ahead)(const void *self, int64_t page);
} am_page_source;

enum { AM_PAGES_FEWEST = 8 }; /* pages that a cache holds at least */

/** An empty cache of at most `bytes` bytes of pages; `bytes` holds AM_PAGES_FEWEST of them. Memory
 * is touched as pages come. Errors: AM_E_NOMEM. */
int am_pages_make(const am_page_source *source, int64_t bytes, am_pages **out);
/** Ends the reader thread. Accepts NULL. */
void am_pages_free(am_pages **pages);

/** The bytes of a page, borrowed until the next call of am_pages_get. Errors: those of fetch. */
int am_pages_get(am_pages *pages, int64_t page, const void **bytes);
/** These pages are asked for next, in this order. Repetitions are welcome. Replaces what was
 * announced before; no more than half of the cache is read ahead. A page that the reader thread
 * cannot fetch is left to am_pages_get, and so is its error. */
void am_pages_announce(am_pages *pages, const int64_t *page, int64_t n);

typedef struct am_page_counts {
    int64_t asked, missed; /* calls of am_pages_get; of these, not in memory yet */
    int64_t ahead;         /* pages that the reader thread fetched */
} am_page_counts;
am_page_counts am_pages_counts(am_pages *pages);

#endif
