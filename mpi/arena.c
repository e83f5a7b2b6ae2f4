/* Arenas. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/arena.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "mpi/error.h"
#include "mpi/param.h"

/* Large arrays ask for huge pages: fewer misses in products, and MPI's copies between processes
 * walk 512 times fewer pages. Only whole huge pages inside the array, so that it never takes more
 * memory than its size. */
static const size_t huge_page = (size_t)2 << 20;

static bool is_large(size_t bytes)
{
    return bytes >= 2 * huge_page;
}

static void ask_huge_pages(void *base, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    if (is_large(bytes)) {
        uintptr_t lo = ((uintptr_t)base + huge_page - 1) / huge_page * huge_page;
        uintptr_t hi = ((uintptr_t)base + bytes) / huge_page * huge_page;
        (void)madvise((void *)lo, hi - lo, MADV_HUGEPAGE); /* a wish: refused, nothing is lost */
    }
#else
    (void)base;
    (void)bytes;
#endif
}

size_t am_arena_need(size_t bytes)
{
    AM_ASSERT(bytes <= SIZE_MAX - AM_ALIGN);
    return (bytes + AM_ALIGN - 1) / AM_ALIGN * AM_ALIGN;
}

int am_arena_create(am_arena *arena, size_t bytes, const char *what)
{
    size_t capacity = am_arena_need(bytes > 0 ? bytes : 1);
    void *base = NULL;
    *arena = (am_arena){0};
    if (posix_memalign(&base, is_large(capacity) ? huge_page : AM_ALIGN, capacity) != 0) {
        return am_fail(AM_E_NOMEM, "no memory for %s: %s", what,
                       am_format_bytes((int64_t)capacity));
    }
    ask_huge_pages(base, capacity);
    *arena = (am_arena){.base = base, .capacity = capacity};
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
    if (taken != NULL) {
        ask_huge_pages(taken, bytes);
    }
    if (taken == NULL) {
        (void)am_fail(AM_E_NOMEM, "no memory for %s: %" PRId64 " of %zu B", what, n, size);
    }
    return taken;
}
