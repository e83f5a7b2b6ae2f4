/* Arenas: one allocation per lifetime (job, tensor, block), planned in bytes, with mark and
 * release. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_ARENA_H
#define AM_MPI_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum { AM_ALIGN = 64 };

typedef struct am_arena {
    unsigned char *base;
    size_t capacity, used, peak; /* bytes */
} am_arena;

/** Bytes that an allocation of `bytes` takes in an arena: rounded up to AM_ALIGN. For plans. */
size_t am_arena_need(size_t bytes);
/** Allocate the arena. Errors: AM_E_NOMEM naming `what` and the size. Local: agree after it. */
int am_arena_create(am_arena *arena, size_t bytes, const char *what);
void am_arena_destroy(am_arena *arena); /* accepts a zeroed arena */
/** `bytes` aligned to AM_ALIGN, zeroed never, NULL when the plan was too small (a bug: AM_ASSERT).
 */
void *am_arena_take(am_arena *arena, size_t bytes);
size_t am_arena_mark(const am_arena *arena);
void am_arena_release(am_arena *arena, size_t mark); /* poisons in Debug */

/** calloc with a message: NULL and AM_E_NOMEM in the slot. n*size is checked for overflow. */
void *am_new(int64_t n, size_t size, const char *what);

#endif
