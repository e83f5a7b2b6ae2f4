/* Redistribution: see grid_move.h. Who sends what to whom follows from the runs and the layout, so
 * nothing is asked: a rank packs for each other rank what that one has of its run, in the order of
 * the elements, and unpacks in the same order. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/grid_move.h"

#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/error.h"

enum { ROOM = 1 << 18, LEAST = 1 << 12 }; /* elements: of all parts, of one */

static int ranks_of(const am_layout *on)
{
    return on->rows * on->cols;
}

int64_t am_mover_part(const am_layout *layout)
{
    const int64_t part = ROOM / ranks_of(layout);
    return part < LEAST ? LEAST : part;
}

static size_t need(int64_t n, size_t size)
{
    return am_arena_need((size_t)n * size);
}

int64_t am_mover_bytes(const am_layout *layout)
{
    const int64_t part = am_mover_part(layout), ranks = ranks_of(layout);
    return (int64_t)(2 * need(part, sizeof(double)) + need(part * ranks, sizeof(double)) +
                     2 * need(2 * ranks, sizeof(int64_t)) + need(ranks, sizeof(am_run)));
}

am_mover am_mover_take(am_arena *arena, const am_grid *grid)
{
    const int64_t part = am_mover_part(&grid->layout), ranks = ranks_of(&grid->layout);
    const size_t reals = (size_t)part * sizeof(double), pairs = 2 * (size_t)ranks * sizeof(int64_t);
    return (am_mover){.grid = grid,
                      .part = part,
                      .mine = am_arena_take(arena, reals),
                      .near = am_arena_take(arena, reals),
                      .far = am_arena_take(arena, reals * (size_t)ranks),
                      .count = am_arena_take(arena, pairs),
                      .at = am_arena_take(arena, pairs),
                      .run = am_arena_take(arena, (size_t)ranks * sizeof(am_run))};
}

/* Elements of one row and one block of columns: they lie together wherever they are. */
typedef struct am_stretch {
    int64_t i, j, n;
    int owner;
} am_stretch;

/* The stretch that begins at element lo of a run up to hi. */
static am_stretch stretch_at(am_matrix a, int64_t lo, int64_t hi)
{
    const am_layout *on = &a.grid->layout;
    am_stretch s = {.i = lo / a.cols, .j = lo % a.cols};
    const int64_t block_end = (s.j / on->block + 1) * on->block;
    const int64_t end = block_end < a.cols ? block_end : a.cols;
    s.n = end - s.j < hi - lo ? end - s.j : hi - lo;
    s.owner = (int)(s.i / on->block % on->rows * on->cols + s.j / on->block % on->cols);
    return s;
}

/* Where this rank has it. */
static double *place_of(am_matrix a, const am_stretch *s)
{
    const am_grid *g = a.grid;
    const int64_t row = am_layout_count(&g->layout, s->i, g->row, g->layout.rows);
    const int64_t col = am_layout_count(&g->layout, s->j, g->col, g->layout.cols);
    return a.at + row * a.step + col;
}

/* Bytes and places: of `near` by owners of this rank's run, of `far` by the ranks whose runs have
 * elements of ours. */
static void count(am_mover *m, am_matrix a)
{
    const int ranks = ranks_of(&m->grid->layout), me = m->grid->rank;
    int64_t *near = m->count, *far = m->count + ranks;
    memset(m->count, 0, 2 * (size_t)ranks * sizeof *m->count);
    for (int r = 0; r < ranks; r++) {
        AM_ASSERT(m->run[r].hi - m->run[r].lo <= m->part);
        for (int64_t lo = m->run[r].lo; lo < m->run[r].hi;) {
            const am_stretch s = stretch_at(a, lo, m->run[r].hi);
            const int64_t bytes = s.n * (int64_t)sizeof(double);
            near[s.owner] += r == me ? bytes : 0;
            far[r] += s.owner == me ? bytes : 0;
            lo += s.n;
        }
    }
    for (int half = 0; half < 2; half++) {
        int64_t at = 0;
        for (int r = 0; r < ranks; r++) {
            m->at[half * ranks + r] = at;
            at += m->count[half * ranks + r];
        }
    }
}

static void copy(double *packed, double *open, int64_t n, bool is_packing)
{
    memcpy(is_packing ? packed : open, is_packing ? open : packed, (size_t)n * sizeof(double));
}

/* `near`, to or from this rank's run. */
static void pack_near(am_mover *m, am_matrix a, bool is_packing)
{
    const am_run run = m->run[m->grid->rank];
    int64_t *at = m->at;
    for (int64_t lo = run.lo; lo < run.hi;) {
        const am_stretch s = stretch_at(a, lo, run.hi);
        copy(m->near + at[s.owner] / (int64_t)sizeof(double), m->mine + (lo - run.lo), s.n,
             is_packing);
        at[s.owner] += s.n * (int64_t)sizeof(double);
        lo += s.n;
    }
    for (int r = 0; r < ranks_of(&m->grid->layout); r++) {
        at[r] -= m->count[r];
    }
}

/* `far`, to or from this rank's elements of all runs; they follow each other. */
static void pack_far(am_mover *m, am_matrix a, bool is_packing)
{
    double *packed = m->far;
    for (int r = 0; r < ranks_of(&m->grid->layout); r++) {
        for (int64_t lo = m->run[r].lo; lo < m->run[r].hi;) {
            const am_stretch s = stretch_at(a, lo, m->run[r].hi);
            if (s.owner == m->grid->rank) {
                copy(packed, place_of(a, &s), s.n, is_packing);
                packed += s.n;
            }
            lo += s.n;
        }
    }
}

int am_mover_spread_all(am_mover *m, am_matrix a)
{
    const int ranks = ranks_of(&m->grid->layout);
    AM_ASSERT(a.grid == m->grid && a.row == 0 && a.col == 0);
    count(m, a);
    pack_near(m, a, true);
    const int rc = am_exchange_all(m->grid->comm, m->near, m->count, m->at, m->far,
                                   m->count + ranks, m->at + ranks);
    if (rc == 0) {
        pack_far(m, a, false);
    }
    return rc;
}

int am_mover_collect_all(am_mover *m, am_matrix a)
{
    const int ranks = ranks_of(&m->grid->layout);
    AM_ASSERT(a.grid == m->grid && a.row == 0 && a.col == 0);
    count(m, a);
    pack_far(m, a, true);
    const int rc = am_exchange_all(m->grid->comm, m->far, m->count + ranks, m->at + ranks, m->near,
                                   m->count, m->at);
    if (rc == 0) {
        pack_near(m, a, false);
    }
    return rc;
}
