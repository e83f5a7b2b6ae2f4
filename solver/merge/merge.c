/* The merge engine: the job, its batches and its agreements.
 *
 *   spans    |-shared a-|-shared z-|--b--|-c-|d|------e------|   of this rank
 *   groups   |    all at once      |   whole   | too large   |
 *   batches  |  0  |  1  |  2  |  3|     4     |  5  |   6   |   <= `block` elements
 *
 * A group is visited once for each visit of its passes and once more to combine. A set of shared
 * units (sets.c; mostly all of them) is one group, so that all ranks reduce it at once; then come
 * groups of small tensors, which
 * go through all of their passes in one batch, and large tensors one by one. The next batch is
 * staged before the present one is loaded. A method without passes has one group, visited once;
 * each matrix of one that has some (dense.c) is a group of its own, gathered over its batches and
 * merged with the last one.
 *
 * Every rank takes part in as many agreements as any other: shared batches up to the largest number
 * on any rank, local ones likewise. A local error is kept and agreed at the next batch, and nothing
 * that can fail on one rank stands between an agreement and the reduction that follows it. Local
 * batches of two ranks take different times, so ranks may be some agreements ahead of others there.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/merge.h"

#include <stddef.h>
#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/runtime.h"
#include "mpi/watchdog.h"
#include "solver/merge/input.h"
#include "solver/merge/engine.h"

/* ---- groups and batches ---- */

int64_t am_batch_take(const am_engine *e, const am_span *span, int64_t lo, int64_t room)
{
    bool by_rows;
    int64_t cols;
    if (span->hi - lo <= room) {
        return span->hi - lo;
    }
    if (e->method->n_passes == 0 && e->method->by_rows == NULL) {
        return room;
    }
    return room - room % am_tile_cut(e, span->tensor, &by_rows, &cols);
}

/* The next batch of the spans up to `end`, from (*span, *offset). Returns its number of pieces.
 * pieces: NULL to count only. */
static int64_t cut_pieces(const am_engine *e, int64_t end, int64_t *span, int64_t *offset,
                          am_span *pieces)
{
    int64_t room = e->block, n = 0;
    while (room > 0 && *span < end) {
        const am_span *s = &e->order[*span];
        const int64_t lo = s->lo + *offset, take = am_batch_take(e, s, lo, room);
        if (take == 0) {
            break; /* the block holds a tile of any tensor: not at its start */
        }
        if (pieces != NULL) {
            pieces[n] = (am_span){.tensor = s->tensor, .lo = lo, .hi = lo + take};
        }
        n++;
        room -= take;
        *offset += take;
        if (lo + take == s->hi) {
            (*span)++;
            *offset = 0;
        }
    }
    return n;
}

static int64_t count_batches(const am_engine *e, int64_t first, int64_t end)
{
    int64_t n = 0;
    for (int64_t span = first, offset = 0; span < end; n++) {
        (void)cut_pieces(e, end, &span, &offset, NULL);
    }
    return n;
}

static int64_t span_elements(const am_engine *e, int64_t i)
{
    return e->order[i].hi - e->order[i].lo;
}

/* The end of the spans of a set of shared units. */
static int64_t set_end(const am_engine *e, int64_t first)
{
    int64_t end = first;
    if (e->n_sets == 1) {
        return e->n_order_shared;
    }
    const int64_t set = am_sets_find(e, e->order[first].tensor);
    while (end < e->n_order_shared && am_sets_find(e, e->order[end].tensor) == set) {
        end++;
    }
    return end;
}

/* Without passes: a matrix, or all spans up to the next one. */
static int64_t run_end(const am_engine *e, int64_t first)
{
    int64_t end = first;
    if (e->is_dense == NULL) {
        return e->n_order;
    }
    while (end < e->n_order && !am_is_dense(e, e->order[end].tensor)) {
        end++;
    }
    return end > first ? end : first + 1;
}

/* The end of the group that starts at span `first`. */
static int64_t group_end(const am_engine *e, int64_t first)
{
    if (e->method->n_passes == 0) {
        return run_end(e, first);
    }
    if (first < e->n_order_shared) {
        return set_end(e, first);
    }
    int64_t end = first, elements = 0;
    while (end < e->n_order && elements + span_elements(e, end) <= e->block) {
        elements += span_elements(e, end++);
    }
    return end > first ? end : first + 1;
}

am_group am_group_at(const am_engine *e, int64_t first)
{
    am_group g = {.first = first, .end = group_end(e, first)};
    g.is_shared = first < e->n_order_shared;
    g.is_dense = am_is_dense(e, e->order[first].tensor);
    g.is_whole = e->method->n_passes > 0 && !g.is_shared && span_elements(e, first) <= e->block;
    g.batches = g.is_whole ? 1 : count_batches(e, first, g.end);
    return g;
}

/* ---- staging ---- */

const am_merge_input *am_copy_input(const am_merge_job *job, int64_t tensor)
{
    if (job->base != NULL && job->base->tensor[tensor] >= 0) {
        return job->base;
    }
    for (int t = 0; t < job->n_models; t++) {
        if (job->models[t].tensor[tensor] >= 0) {
            return &job->models[t];
        }
    }
    return NULL;
}

/* What one input is asked for: everything merged, of a model but products, and what is copied from
 * it. raw [n of batch].
 * Returns how many. */
static int64_t ask_input(const am_engine *e, const am_batch *batch, const am_merge_input *input,
                         bool is_merged)
{
    int64_t n = 0;
    for (int64_t i = 0; i < batch->n; i++) {
        const int64_t tensor = batch->pieces[i].tensor;
        const bool is_read = is_merged && (input == e->job->base || !am_is_factored(e, tensor));
        if (e->job->copy[tensor] ? am_copy_input(e->job, tensor) == input : is_read) {
            batch->raw[n++] = batch->pieces[i];
        }
    }
    return n;
}

static int stage_input(am_engine *e, am_batch *batch, const am_merge_input *input, int64_t number,
                       bool is_merged)
{
    const int64_t n = ask_input(e, batch, input, is_merged);
    for (int64_t i = 0; i < n; i++) {
        const am_span *piece = &batch->raw[i];
        const int64_t at = input->tensor[piece->tensor];
        int64_t stored = 0, staged = 0;
        if (at >= 0) {
            am_source_weigh(input->source, at, piece->hi - piece->lo, &stored, &staged);
        }
        e->result.bytes_read += stored;
    }
    return am_input_stage(input, batch->raw, n, batch->mapped + number * e->max_pieces);
}

static int hold_input(am_engine *e, const am_merge_input *input, int64_t number, bool is_held)
{
    am_batch *batch = &e->batch[e->now];
    const int64_t n = is_held ? ask_input(e, batch, input, true) : 0;
    return am_input_hold(input, batch->raw, n, batch->mapped + number * e->max_pieces);
}

/* A batch that is visited more than once is read once: inputs keep it until the next one. */
static int hold_batch(am_engine *e, bool is_held)
{
    const am_merge_job *job = e->job;
    int rc = 0;
    if (!is_held && !e->is_held) {
        return 0;
    }
    e->is_held = is_held;
    if (e->has_base) {
        AM_KEEP(hold_input(e, job->base, 0, is_held));
    }
    for (int t = 0; t < job->n_models; t++) {
        AM_KEEP(hold_input(e, &job->models[t], t + 1, is_held));
        if (e->method->needs_aux) {
            AM_KEEP(hold_input(e, &job->aux[t], job->n_models + t + 1, is_held));
        }
    }
    return rc;
}

/* Cut the next batch and announce it. Nothing is left: an empty batch. */
static int stage_batch(am_engine *e, am_batch *batch)
{
    const am_merge_job *job = e->job;
    int rc = 0;
    batch->n = 0;
    if (e->next_span >= e->n_order) {
        return 0;
    }
    batch->n =
        cut_pieces(e, group_end(e, e->next_span), &e->next_span, &e->next_offset, batch->pieces);
    if (job->base != NULL) {
        AM_KEEP(stage_input(e, batch, job->base, 0, e->has_base));
    }
    for (int t = 0; t < job->n_models; t++) {
        AM_KEEP(stage_input(e, batch, &job->models[t], t + 1, true));
        if (e->method->needs_aux) {
            AM_KEEP(stage_input(e, batch, &job->aux[t], job->n_models + t + 1, true));
        }
    }
    return rc;
}

/* Before batch b of the group: the one after it, which is the group's first again until the group
 * is combined. A group of one batch stays where it is. */
static int stage_ahead(am_engine *e, const am_group *g, int64_t b, am_visit visit)
{
    if (b + 1 == g->batches && visit < AM_VISIT_COMBINE) {
        if (g->batches == 1) {
            return 0;
        }
        e->next_span = g->first;
        e->next_offset = 0;
    }
    return stage_batch(e, &e->batch[!e->now]);
}

/* ---- work on a batch ---- */

static int copy_piece(am_engine *e, const am_span *piece)
{
    const am_sink *sink = e->job->sink;
    const am_merge_input *input = am_copy_input(e->job, piece->tensor);
    const int64_t bytes = am_dtype_bytes(sink->tensors->t[piece->tensor].dtype);
    const int64_t room = e->max_tile * (int64_t)sizeof *e->out / bytes;
    int rc = 0;
    AM_ASSERT(input != NULL);
    for (int64_t lo = piece->lo, n; rc == 0 && lo < piece->hi; lo += n) {
        n = piece->hi - lo < room ? piece->hi - lo : room;
        rc = input->source->load_raw(input->source->self, input->tensor[piece->tensor], lo, n,
                                     e->out);
        AM_KEEP(sink->store_raw(sink->self, piece->tensor, lo, n, e->out));
        e->result.bytes_written += n * bytes;
    }
    return rc;
}

static int visit_piece(am_engine *e, const am_span *piece, bool is_shared, am_visit visit)
{
    am_unit_run *run = am_unit_of(e, piece->tensor, is_shared);
    int rc = 0;
    if (run == &e->local && run->tensor != piece->tensor) {
        am_unit_open(e, piece->tensor, run);
    }
    if (run != NULL) {
        rc = am_visit_piece(e, run, piece, visit);
    } else if (visit == AM_VISIT_COMBINE) {
        rc = copy_piece(e, piece);
    }
    if (visit >= AM_VISIT_COMBINE) {
        e->result.elements += piece->hi - piece->lo;
        if (e->job->progress != NULL) {
            am_progress_add(&e->progress, piece->hi - piece->lo);
        }
    }
    return rc;
}

static int flush(const am_engine *e)
{
    const am_sink *sink = e->job->sink;
    return sink->flush != NULL ? sink->flush(sink->self) : 0;
}

static int visit_batch(am_engine *e, bool is_shared, am_visit visit)
{
    const am_batch *batch = &e->batch[e->now];
    int rc = 0;
    for (int64_t i = 0; i < batch->n; i++) {
        AM_KEEP(visit_piece(e, &batch->pieces[i], is_shared, visit));
    }
    if (visit == AM_VISIT_COMBINE) {
        AM_KEEP(flush(e));
    }
    return rc;
}

/* Batch b of a matrix; it is merged after the last one. */
static int gather_batch(am_engine *e, const am_group *g, int64_t b)
{
    if (b == 0) {
        am_dense_open(e, &e->order[g->first]);
    }
    int rc = visit_batch(e, false, AM_VISIT_GATHER);
    if (b + 1 == g->batches) {
        AM_KEEP(am_dense_finish(e));
        AM_KEEP(flush(e));
    }
    return rc;
}

/* One pass of a unit that lies in the batch whole; nothing is sent. */
static int pass_whole_all(am_engine *e, const am_span *piece, int p)
{
    const am_visit visit = e->method->pass[p].sums != NULL ? AM_VISIT_SUMS : AM_VISIT_ORDER;
    int rc = am_pass_begin(e, MPI_COMM_SELF, &e->local, 1, p);
    while (rc == 0 && e->is_open) {
        am_pass_visit(e, &e->local, 1);
        AM_KEEP(am_pass_samples(e) ? am_sample_piece(e, &e->local, piece, true)
                                   : visit_piece(e, piece, false, visit));
        AM_KEEP(am_pass_reduce_all(MPI_COMM_SELF, e, &e->local, 1));
    }
    AM_KEEP(am_pass_end(e, &e->local, 1, p));
    return rc;
}

/* All passes of the whole tensors of the batch, one after another. */
static int run_whole_all(am_engine *e)
{
    const am_batch *batch = &e->batch[e->now];
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < batch->n; i++) {
        const am_span *piece = &batch->pieces[i];
        const bool is_reduced = am_is_reduced(e, piece->tensor);
        if (is_reduced) {
            am_unit_open(e, piece->tensor, &e->local);
        }
        for (int p = 0; is_reduced && p < e->method->n_passes; p++) {
            AM_KEEP(pass_whole_all(e, piece, p));
        }
        am_pass_visit(e, &e->local, is_reduced);
        AM_KEEP(visit_piece(e, piece, false, AM_VISIT_COMBINE));
    }
    AM_KEEP(flush(e));
    return rc;
}

/* ---- groups ---- */

static int agree_batch_all(MPI_Comm comm, am_engine *e, const am_group *g, int rc)
{
    e->ticks++;
    return g->is_shared ? am_agree_step_all(comm, rc) : am_agree_ahead_all(comm, &e->agreed, rc);
}

/* Elements here and there of a group, beside what is staged. */
static int sample_group_all(MPI_Comm comm, am_engine *e, const am_group *g)
{
    int rc = 0;
    am_alive("merge");
    for (int64_t i = g->first; i < g->end; i++) {
        const am_span *span = &e->order[i];
        AM_KEEP(am_sample_piece(e, am_unit_of(e, span->tensor, g->is_shared), span, false));
    }
    return agree_batch_all(comm, e, g, rc);
}

/* Visit all batches of a group, and go on with empty ones up to `rounds`. rc: an error of this rank
 * that is to be agreed. */
static int visit_group_all(MPI_Comm comm, am_engine *e, const am_group *g, am_visit visit,
                           int64_t rounds, int rc)
{
    for (int64_t b = 0; b < rounds; b++) {
        am_alive("merge");
        if (b < g->batches) {
            AM_KEEP(stage_ahead(e, g, b, visit));
            AM_KEEP(g->is_whole                ? run_whole_all(e)
                    : visit == AM_VISIT_GATHER ? gather_batch(e, g, b)
                                               : visit_batch(e, g->is_shared, visit));
            e->now ^= g->batches > 1 || visit >= AM_VISIT_COMBINE;
        }
        AM_TRY(agree_batch_all(comm, e, g, rc));
    }
cleanup:
    return rc;
}

/* All passes of the n units of a group of batches, then their output. `reduce` is the communicator
 * of those that share the units. */
static int run_units_all(MPI_Comm comm, MPI_Comm reduce, am_engine *e, am_unit_run *run, int64_t n,
                         const am_group *g, int64_t rounds)
{
    int rc = hold_batch(e, g->batches == 1 && e->method->n_passes > 0);
    for (int p = 0; n > 0 && p < e->method->n_passes; p++) {
        const am_visit visit = e->method->pass[p].sums != NULL ? AM_VISIT_SUMS : AM_VISIT_ORDER;
        AM_KEEP(am_pass_begin(e, reduce, run, n, p));
        while (rc == 0 && e->is_open) {
            am_pass_visit(e, run, n);
            AM_TRY(am_pass_samples(e) ? sample_group_all(comm, e, g)
                                      : visit_group_all(comm, e, g, visit, rounds, rc));
            AM_TRY(am_pass_reduce_all(reduce, e, run, n));
        }
        AM_KEEP(am_pass_end(e, run, n, p));
    }
    e->pass = NULL;
    am_pass_visit(e, run, n);
    rc = visit_group_all(comm, e, g, g->is_dense ? AM_VISIT_GATHER : AM_VISIT_COMBINE, rounds, rc);
cleanup:
    return rc;
}

/* This rank's spans of a set, which may be none; `first`: those of the sets before it end there. */
static am_group shared_group(const am_engine *e, int64_t set, int64_t first)
{
    const bool has_some =
        first < e->n_order_shared && am_sets_find(e, e->order[first].tensor) == set;
    return has_some ? am_group_at(e, first)
                    : (am_group){.first = first, .end = first, .is_shared = true};
}

/* All sets, one after another. rounds [n_sets]: batches of a set, the most of any rank. */
static int run_shared_all(MPI_Comm comm, am_engine *e, const int64_t *rounds)
{
    am_group g = {.end = 0};
    int rc = 0;
    for (int64_t s = 0; s < e->n_sets; s++) {
        g = shared_group(e, s, g.end);
        am_sets_open(e, s);
        AM_TRY(run_units_all(comm, comm, e, e->shared, e->n_shared, &g, rounds[s]));
    }
cleanup:
    return rc;
}

static int run_local_all(MPI_Comm comm, am_engine *e)
{
    am_group g;
    int rc = 0;
    for (int64_t first = e->n_order_shared; first < e->n_order; first = g.end) {
        g = am_group_at(e, first);
        const int64_t tensor = e->order[first].tensor;
        const bool is_unit = e->method->n_passes > 0 && !g.is_whole && am_is_reduced(e, tensor);
        if (is_unit) {
            am_unit_open(e, tensor, &e->local);
        }
        AM_TRY(run_units_all(comm, MPI_COMM_SELF, e, &e->local, is_unit, &g, g.batches));
    }
    while (e->ticks < e->rounds) {
        e->ticks++;
        AM_TRY(am_agree_ahead_all(comm, &e->agreed, 0));
    }
    rc = am_agree_finish_all(comm, &e->agreed);
cleanup:
    return rc;
}

/* At most so many visits does a batch of a local group take. */
static int64_t most_visits(const am_engine *e, const am_group *g)
{
    int64_t visits = 1;
    const bool has_passes = !g->is_whole && am_is_reduced(e, e->order[g->first].tensor);
    for (int p = 0; has_passes && p < e->method->n_passes; p++) {
        visits += e->method->pass[p].sums != NULL ? 1 : AM_ORDER_MAX_VISITS;
    }
    return visits;
}

static int64_t count_rounds(const am_engine *e)
{
    int64_t rounds = 0;
    for (int64_t first = e->n_order_shared; first < e->n_order;) {
        const am_group g = am_group_at(e, first);
        rounds += g.batches * most_visits(e, &g);
        first = g.end;
    }
    return rounds;
}

static int run_groups_all(MPI_Comm comm, am_engine *e)
{
    int64_t *rounds = am_new(e->n_sets + 1, sizeof *rounds, "sets of units"), end = 0;
    int rc = rounds != NULL ? stage_batch(e, &e->batch[0]) : AM_E_NOMEM;
    AM_AGREE(comm);
    for (int64_t s = 0; s < e->n_sets; s++) {
        const am_group g = shared_group(e, s, end);
        rounds[s] = g.batches;
        end = g.end;
    }
    rounds[e->n_sets] = count_rounds(e);
    AM_TRY(am_max_i64_all(comm, rounds, e->n_sets + 1));
    AM_TRY(run_shared_all(comm, e, rounds));
    e->ticks = 0;
    e->rounds = rounds[e->n_sets];
    rc = run_local_all(comm, e);
cleanup:
    free(rounds);
    return rc;
}

/* ---- the job ---- */

static int count_params(const am_method *method)
{
    int n = 0;
    while (method->params[n].key != NULL) {
        n++;
    }
    return n;
}

static am_scope scope_of(const am_merge_job *job)
{
    const am_method *method = job->method;
    if (method->n_passes == 0) {
        return AM_SCOPE_TENSOR; /* it makes no difference */
    }
    if (job->scope != 0) {
        return job->scope;
    }
    return method->default_scope != 0          ? method->default_scope
           : method->scopes == AM_SCOPE_GLOBAL ? AM_SCOPE_GLOBAL
                                               : AM_SCOPE_TENSOR;
}

static am_semantics semantics_of(const am_merge_job *job)
{
    if (job->semantics != 0) {
        return job->semantics;
    }
    return job->method->semantics == AM_SEMANTICS_PAPER ? AM_SEMANTICS_PAPER
                                                        : AM_SEMANTICS_MERGEKIT;
}

void am_engine_size(am_engine *e)
{
    int64_t elements = 0;
    for (int64_t i = 0; i < e->n_order; i++) {
        elements += span_elements(e, i);
    }
    e->block = elements < e->job->block ? elements : e->job->block;
    e->window.room = e->max_tile + AM_STAGGER;
    if (e->method->n_passes > 0 || e->method->by_rows != NULL) {
        e->block = e->block < e->max_tile ? e->max_tile : e->block;
    }
    e->max_pieces = e->n_order < e->block ? e->n_order : e->block;
}

bool am_method_rounds(const am_method *method)
{
    bool any = method->rounded != AM_ROUNDED_NOT;
    for (int p = 0; p < method->n_passes; p++) {
        any = any || method->pass[p].rounded != AM_ROUNDED_NOT;
    }
    return any;
}

int64_t am_engine_bytes(const am_engine *e)
{
    const int64_t models = e->job->n_models, aux = e->method->needs_aux ? models : 0;
    const size_t inputs = (size_t)(models + aux + 1), real = sizeof(double);
    const size_t pieces = am_arena_need((size_t)e->max_pieces * sizeof(am_span));
    const size_t window = am_arena_need((size_t)e->window.room * real);
    const size_t low =
        am_method_rounds(e->method) ? am_arena_need((size_t)e->window.room * sizeof(float)) : 0;
    const int vectors = e->method->scratch != NULL ? e->method->scratch(e->job->n_models) : 0;
    const size_t scratch = am_arena_need((size_t)(vectors * e->max_tile) * real);
    return (int64_t)(2 * pieces * (inputs + 2) + (window + low) * inputs + scratch +
                     3 * am_arena_need((size_t)models * real) +
                     am_arena_need((size_t)e->max_tile * real));
}

static int prepare(am_engine *e)
{
    const am_merge_job *job = e->job;
    const size_t models = (size_t)job->n_models;
    const size_t aux = e->method->needs_aux ? models : 0;
    const size_t pieces = (size_t)e->max_pieces * sizeof(am_span);
    const size_t pointers = models * sizeof(double *);
    const size_t reals = (size_t)e->max_tile * sizeof(double);
    const size_t window = (size_t)e->window.room * sizeof(double);
    const size_t low = am_method_rounds(e->method) ? (size_t)e->window.room * sizeof(float) : 0;
    const size_t vectors =
        e->method->scratch != NULL ? (size_t)e->method->scratch(job->n_models) : 0;
    const size_t scratch = vectors * (size_t)e->max_tile * sizeof(double);
    const size_t inputs = models + aux + 1;
    int rc = am_arena_create(&e->arena, (size_t)am_engine_bytes(e), "merge buffers");
    if (rc != 0) {
        return rc;
    }
    for (int i = 0; i < 2; i++) {
        e->batch[i].pieces = am_arena_take(&e->arena, pieces);
        e->batch[i].raw = am_arena_take(&e->arena, pieces);
        e->batch[i].mapped = am_arena_take(&e->arena, pieces * inputs);
    }
    e->window.x = am_arena_take(&e->arena, pointers);
    e->window.a = am_arena_take(&e->arena, pointers);
    e->window.base = am_arena_take(&e->arena, window);
    e->window.model = am_arena_take(&e->arena, window * models);
    e->window.aux = am_arena_take(&e->arena, window * aux);
    e->window.low_base = am_arena_take(&e->arena, low);
    e->window.low = am_arena_take(&e->arena, low * models);
    e->window.rounded = am_arena_take(&e->arena, pointers);
    e->scratch = am_arena_take(&e->arena, scratch);
    e->out = am_arena_take(&e->arena, reals);
    return 0;
}

void am_engine_close(am_engine *e)
{
    for (int64_t i = 0; i < e->shared_room; i++) {
        am_unit_free(&e->shared[i]);
    }
    am_unit_free(&e->local);
    am_order_free(&e->picks);
    am_room_free(&e->exact);
    am_room_free(&e->tile_sum);
    am_room_free(&e->key);
    am_room_free(&e->keys);
    am_arena_destroy(&e->arena);
    free(e->shared);
    free(e->parts);
    free(e->set);
    free(e->order);
    free(e->is_dense);
    free(e->is_spread);
    free(e->staged);
    am_arena_destroy(&e->dense.arena);
}

am_engine am_engine_make(const am_merge_job *job)
{
    return (am_engine){.job = job,
                       .method = job->method,
                       .scope = scope_of(job),
                       .semantics = semantics_of(job),
                       .has_base = job->method->needs_base ||
                                   (job->method->takes_base && job->base != NULL),
                       .n_params = count_params(job->method),
                       .max_tile = AM_TILE,
                       .local = {.tensor = -1},
                       .bound = {.tensor = -1},
                       .window = {.span = {.tensor = -1}, .low_span = {.tensor = -1}}};
}

int am_merge_run_all(MPI_Comm comm, const am_merge_job *job, const am_slice *slice,
                     am_merge_result *result)
{
    am_engine e = am_engine_make(job);
    int rc = 0, rank = 0;
    AM_ASSERT(job->block >= 1 && job->n_models >= 1 && job->n_models <= AM_MAX_MODELS);
    AM_ASSERT(!e.has_base || job->base != NULL);
    AM_ASSERT(!job->method->needs_aux || job->aux != NULL);
    AM_TRY(am_sets_plan_all(comm, &e, slice));
    am_engine_size(&e);
    rc = prepare(&e);
    MPI_Comm_rank(comm, &rank);
    AM_KEEP(am_dense_reserve(&e, rank));
    AM_AGREE(comm);
    am_watchdog_at_least(am_dense_seconds(&e));
    if (job->progress != NULL) {
        am_progress_start(&e.progress, job->progress, slice->elements, "elements");
    }
    rc = am_spread_run_all(comm, &e, slice);
    if (rc == 0) {
        rc = run_groups_all(comm, &e);
    }
    if (job->progress != NULL) {
        am_progress_end(&e.progress);
    }
cleanup:
    *result = e.result;
    am_engine_close(&e);
    return rc;
}
