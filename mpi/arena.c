/* Arenas. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/arena.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/param.h"

size_t am_arena_need(size_t bytes)
{
    AM_ASSERT(bytes <= SIZE_MAX - AM_ALIGN);
    return (bytes + AM_ALIGN - 1) / AM_ALIGN * AM_ALIGN;
}

int am_arena_create(am_arena *arena, size_t bytes, const char *what)
{
    size_t capacity = am_arena_need(bytes > 0 ? bytes : 1);
    *arena = (am_arena){.base = aligned_alloc(AM_ALIGN, capacity), .capacity = capacity};
    if (arena->base == NULL) {
        *arena = (am_arena){0};
        return am_fail(AM_E_NOMEM, "no memory for %s: %s", what,
                       am_format_bytes((int64_t)capacity));
    }
    return 0;
}

void am_arena_destroy(am_arena *arena)
{
    free(arena->base);
    *arena = (am_arena){0};
}

void *am_arena_take(am_arena *arena, size_t bytes)
{
    size_t need = am_arena_need(bytes);
    AM_ASSERT(need <= arena->capacity - arena->used); /* else the plan was too small */
    void *taken = arena->base + arena->used;
    arena->used += need;
    if (arena->used > arena->peak) {
        arena->peak = arena->used;
    }
    return taken;
}

size_t am_arena_mark(const am_arena *arena)
{
    return arena->used;
}

void am_arena_release(am_arena *arena, size_t mark)
{
    AM_ASSERT(mark <= arena->used);
#ifdef AM_DEBUG
    memset(arena->base + mark, 0xff, arena->used - mark); /* NaN in every float type */
#endif
    arena->used = mark;
}

void *am_new(int64_t n, size_t size, const char *what)
{
    size_t bytes = 0;
    void *taken = NULL;
    AM_ASSERT(n >= 0);
    if (!__builtin_mul_overflow((size_t)n, size, &bytes)) {
        taken = calloc(1, bytes > 0 ? bytes : 1);
    }
    if (taken == NULL) {
        (void)am_fail(AM_E_NOMEM, "no memory for %s: %" PRId64 " of %zu B", what, n, size);
    }
    return taken;
}
