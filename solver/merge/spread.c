/* Matrices on a process grid: merged by all of its ranks together, before what ranks do alone.
 *
 *   blocks of a tensor   0 1 2 3 4 5 ..   read and stored by rank  0 1 2 3 0 1 ..  of 4
 *
 * Each rank reads its blocks of an input part by part; part by part they go to where the grid has
 * them (grid_move.h), and the result comes back. So a rank holds its share of everything, and no
 * tensor is whole anywhere. Ranks of the grid agree on every part, and ranks beside it wait for
 * them at the agreement that ends a matrix. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "mpi/watchdog.h"
#include "solver/linalg/grid_move.h"
#include "solver/merge/engine.h"
#include "solver/merge/input.h"

typedef struct am_spread_run {
    am_engine *e;
    am_grid grid;
    am_mover mover;
    int turn;
} am_spread_run;

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- what it takes ---- */

int am_spread_owner(const am_layout *layout, int64_t block)
{
    return (int)(block % (layout->rows * layout->cols));
}

/* Of a matrix: what it takes of the arena; or what libraries take for it and what is made of it. */
static int64_t own_bytes(const am_engine *e, const am_layout *on, const am_unit *unit)
{
    return am_dense_unit_bytes(e->method, unit) + am_mover_bytes(on);
}

static int64_t besides_bytes(const am_engine *e, const am_layout *on, const am_unit *unit)
{
    int64_t rows = unit->outer, cols = unit->n / rows;
    int64_t bytes = am_grid_besides(on, rows + cols); /* polar factors have sides of both */
    if (e->method->largest != NULL) {
        e->method->largest(unit, &rows, &cols);
        bytes = most(bytes, am_grid_besides(on, rows + cols));
    }
    return bytes;
}

typedef int64_t bytes_of(const am_engine *e, const am_layout *on, const am_unit *unit);

/* Of the matrix that takes most; 0 on ranks beside the grid. */
static int64_t most_bytes(const am_engine *e, int rank, bytes_of *of)
{
    const am_layout *on = e->job->grid != NULL ? &e->job->grid->layout : NULL;
    int64_t bytes = 0;
    for (int64_t i = 0; on != NULL && i < e->job->sink->tensors->n; i++) {
        if (am_is_spread(e, i) && rank < on->rows * on->cols) {
            am_unit_run run = {0};
            am_unit_open(e, i, &run);
            bytes = most(bytes, of(e, on, &run.unit));
        }
    }
    return bytes;
}

int64_t am_spread_bytes(const am_engine *e, int rank)
{
    return most_bytes(e, rank, own_bytes);
}

int64_t am_spread_besides(const am_engine *e, int rank)
{
    return most_bytes(e, rank, besides_bytes);
}

/* ---- parts ---- */

/* Whose blocks of a matrix of numel elements move in a round: runs of the mover. Returns false
 * after the last round. */
static bool aim(am_spread_run *s, int64_t numel, int64_t round)
{
    const int64_t parts = (AM_BLOCK + s->mover.part - 1) / s->mover.part;
    const int ranks = s->grid.layout.rows * s->grid.layout.cols;
    const int64_t first = round / parts * ranks;
    for (int r = 0; r < ranks; r++) {
        const int64_t end = least(numel, (first + r + 1) * AM_BLOCK);
        const int64_t lo = least(end, (first + r) * AM_BLOCK + round % parts * s->mover.part);
        s->mover.run[r] = (am_run){.lo = lo, .hi = least(end, lo + s->mover.part)};
    }
    return first * AM_BLOCK < numel;
}

/* Tell an input of this rank's part, and read it. number: of the input. */
static int load_part(am_spread_run *s, const am_merge_input *input, int number, int64_t tensor)
{
    const am_run run = s->mover.run[s->grid.rank];
    const am_span piece = {.tensor = tensor, .lo = run.lo, .hi = run.hi};
    const bool is_gram = number > s->e->job->n_models;
    int64_t stored = 0, held = 0;
    int rc = 0;
    if (run.lo >= run.hi) {
        return 0;
    }
    am_source_weigh(input->source, input->tensor[tensor], run.hi - run.lo, &stored, &held);
    s->e->result.bytes_read += stored;
    rc = am_input_stage(input, &piece, 1, &s->e->staged[2 * number + (s->turn ^= 1)]);
    for (int64_t lo = run.lo; rc == 0 && lo < run.hi; lo += AM_PART) {
        rc = am_input_load(input, tensor, lo, least(AM_PART, run.hi - lo),
                           !is_gram && s->e->job->allow_nonfinite, s->mover.mine + (lo - run.lo));
    }
    return rc;
}

/* All of a matrix of one input onto the grid. */
static int load_all(am_spread_run *s, const am_merge_input *input, int number, int64_t tensor,
                    am_matrix to)
{
    int rc = 0;
    for (int64_t round = 0; aim(s, to.rows * to.cols, round); round++) {
        am_alive("merge");
        rc = load_part(s, input, number, tensor);
        AM_TRY(am_agree_step_all(s->grid.comm, rc));
        AM_TRY(am_mover_spread_all(&s->mover, to));
    }
cleanup:
    return rc;
}

static int store_part(am_spread_run *s, int64_t tensor)
{
    am_engine *e = s->e;
    const am_run run = s->mover.run[s->grid.rank];
    int rc = 0;
    for (int64_t lo = run.lo; rc == 0 && lo < run.hi; lo += AM_PART) {
        const int64_t hi = least(run.hi, lo + AM_PART);
        for (int64_t i = lo; i < hi; i++) {
            e->out[i - lo] = s->mover.mine[i - run.lo];
        }
        rc = am_store_part(e, &(am_span){.tensor = tensor, .lo = lo, .hi = hi});
    }
    e->result.elements += run.hi - run.lo;
    if (e->job->progress != NULL) {
        am_progress_add(&e->progress, run.hi - run.lo);
    }
    return rc;
}

/* No stop in between: the matrix would be lost, which may have taken hours. */
static int store_all(am_spread_run *s, int64_t tensor, am_matrix from)
{
    const am_sink *sink = s->e->job->sink;
    int rc = 0;
    for (int64_t round = 0; aim(s, from.rows * from.cols, round); round++) {
        am_alive("merge");
        AM_TRY(am_mover_collect_all(&s->mover, from));
        rc = store_part(s, tensor);
        AM_AGREE(s->grid.comm);
    }
    rc = sink->flush != NULL ? sink->flush(sink->self) : 0;
    AM_AGREE(s->grid.comm);
cleanup:
    return rc;
}

/* ---- one matrix ---- */

static void lay_out(am_spread_run *s, int64_t tensor)
{
    am_engine *e = s->e;
    am_dense_run *d = &e->dense;
    const am_matrix like = {.grid = &s->grid};
    am_unit_open(e, tensor, &e->local);
    am_bind(e, tensor);
    const am_unit *u = &e->local.unit;
    const int64_t rows = u->outer, cols = u->n / u->outer;
    am_arena_release(&d->arena, 0);
    s->mover = am_mover_take(&d->arena, &s->grid);
    d->base = am_matrix_take_like(&d->arena, like, rows, cols);
    for (int t = 0; t < u->models; t++) {
        d->delta[t] = am_matrix_take_like(&d->arena, like, rows, cols);
    }
    d->out = am_matrix_take_like(&d->arena, like, rows, cols);
    for (int t = 0; t < u->models && e->method->needs_gram; t++) {
        d->gram[t] = am_matrix_take_like(&d->arena, like, cols, cols);
    }
}

/* Task vectors, or models without a base; and Gram matrices. */
static int gather_all(am_spread_run *s, int64_t tensor)
{
    const am_merge_job *job = s->e->job;
    const am_binding *b = &s->e->bound;
    am_dense_run *d = &s->e->dense;
    int rc = 0;
    if (s->e->has_base) {
        AM_TRY(load_all(s, job->base, 0, tensor, d->base));
    } else {
        am_matrix_fill(d->base, 0);
    }
    for (int t = 0; t < b->models; t++) {
        const int model = b->index[t];
        AM_TRY(load_all(s, &job->models[model], 1 + model, tensor, d->delta[t]));
        am_matrix_add(-1, d->base, d->delta[t]);
        if (s->e->method->needs_gram) {
            AM_TRY(load_all(s, &job->gram[model], 1 + job->n_models + model, tensor, d->gram[t]));
        }
    }
cleanup:
    return rc;
}

static int merge_one_all(am_spread_run *s, int64_t tensor)
{
    const am_dense_run *d = &s->e->dense;
    int rc = 0;
    lay_out(s, tensor);
    AM_TRY(gather_all(s, tensor));
    AM_TRY(am_dense_merge(s->e)); /* agreed: what it calls is */
    am_matrix_add(1, d->base, d->out);
    AM_TRY(store_all(s, tensor, d->out));
cleanup:
    return rc;
}

/* ---- all of them ---- */

/* is_left [tensors]: matrices on a grid of which some rank's slice has a block. */
static int find_left_all(MPI_Comm comm, const am_engine *e, const am_slice *slice, int64_t *is_left,
                         bool *any)
{
    const int64_t n = e->job->sink->tensors->n;
    for (int64_t i = 0; i < slice->n; i++) {
        is_left[slice->spans[i].tensor] |= am_is_spread(e, slice->spans[i].tensor);
    }
    const int rc = am_max_i64_all(comm, is_left, n);
    *any = false;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        *any = *any || is_left[i] != 0;
    }
    return rc;
}

int am_spread_run_all(MPI_Comm comm, am_engine *e, const am_slice *slice)
{
    const int64_t n = e->job->sink->tensors->n;
    am_spread_run s = {.e = e};
    int64_t *is_left = NULL;
    bool any = false;
    int rc = 0;
    if (e->is_spread == NULL || e->job->grid == NULL) {
        return 0; /* the same on all ranks */
    }
    is_left = am_new(n + 1, sizeof *is_left, "matrices on a grid");
    e->staged = am_new(2 * (2 * (int64_t)e->job->n_models + 1), sizeof *e->staged, "inputs");
    rc = is_left != NULL && e->staged != NULL ? 0 : AM_E_NOMEM;
    AM_AGREE(comm);
    AM_TRY(find_left_all(comm, e, slice, is_left, &any));
    if (any) {
        AM_TRY(am_grid_open_all(comm, &e->job->grid->layout, &s.grid));
    }
    for (int64_t i = 0; i < n; i++) {
        if (is_left[i] != 0) {
            rc = am_grid_is_mine(&s.grid) ? merge_one_all(&s, i) : 0;
            AM_TRY(am_agree_step_all(comm, rc));
        }
    }
cleanup:
    am_grid_close_all(&s.grid);
    e->bound.tensor = e->local.tensor = -1; /* nothing of a grid stays */
    free(is_left);
    return rc;
}
