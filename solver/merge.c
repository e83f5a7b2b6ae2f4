/* The merge engine.
 *
 *   slice   |----tensor a----|--b--|------c------|      this rank's spans, in name order
 *   batches |  0  |  1  |  2  |  3  |  4  |             `block` elements each, cut anywhere
 *
 * Batch b+1 is staged before batch b is loaded. A piece of a batch is loaded and combined window by
 * window (what fits the cache, with all its inputs), then stored whole. Every rank takes part in
 * the agreement of every batch up to the largest number of batches. Elements are combined alone, in
 * f64, so how they are cut changes no bit. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/progress.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"
#include "solver/input.h"

enum { AM_WINDOW = 8 * AM_TILE }; /* elements of every input that are worked on at a time */

/* Where the next batch starts in the slice. */
typedef struct am_position {
    int64_t span, offset; /* elements of the span already taken */
} am_position;

typedef struct am_batch {
    am_span *pieces; /* [n] in the output's numbering; capacity max_pieces */
    am_span *mapped; /* [n_inputs * max_pieces] for staging */
    am_span *raw;    /* [max_pieces] pieces of copied tensors, for staging */
    int64_t n;
} am_batch;

typedef struct am_engine {
    const am_merge_job *job;
    const am_slice *slice;
    int n_params;
    int64_t block; /* elements: the job's, or all of a smaller slice */
    int64_t max_pieces, n_batches;
    am_position next;
    am_batch batch[2]; /* being computed, and the next one, staged */
    am_arena arena;
    int64_t window;              /* elements */
    double *base, *models, *out; /* [window], [n_models, window], [block] */
    const double **x, **model_param;
    am_merge_result result;
    am_progress progress;
} am_engine;

static int count_params(const am_method *method)
{
    int n = 0;
    while (method->params[n].key != NULL) {
        n++;
    }
    return n;
}

static int prepare(am_engine *e)
{
    const am_merge_job *job = e->job;
    const size_t pieces = (size_t)e->max_pieces * sizeof(am_span);
    const size_t pointers = (size_t)job->n_models * sizeof(double *);
    const size_t reals = (size_t)e->block * sizeof(double);
    const size_t window = (size_t)e->window * sizeof(double);
    size_t bytes = 2 * am_arena_need(pieces) * (size_t)(job->n_models + 3) +
                   2 * am_arena_need(pointers + sizeof(double *)) +
                   am_arena_need(window) * (size_t)(job->n_models + 1) + am_arena_need(reals);
    int rc = am_arena_create(&e->arena, bytes, "merge buffers");
    if (rc != 0) {
        return rc;
    }
    for (int i = 0; i < 2; i++) {
        e->batch[i].pieces = am_arena_take(&e->arena, pieces);
        e->batch[i].raw = am_arena_take(&e->arena, pieces);
        e->batch[i].mapped = am_arena_take(&e->arena, pieces * (size_t)(job->n_models + 1));
    }
    e->x = am_arena_take(&e->arena, pointers);
    e->model_param = am_arena_take(&e->arena, pointers);
    e->base = am_arena_take(&e->arena, window);
    e->models = am_arena_take(&e->arena, window * (size_t)job->n_models);
    e->out = am_arena_take(&e->arena, reals);
    return 0;
}

/* The next `block` elements of the slice. Nothing is left: an empty batch. */
static void cut_batch(am_engine *e, am_batch *batch)
{
    int64_t room = e->block;
    batch->n = 0;
    while (room > 0 && e->next.span < e->slice->n) {
        const am_span *span = &e->slice->spans[e->next.span];
        const int64_t lo = span->lo + e->next.offset;
        const int64_t n = span->hi - lo < room ? span->hi - lo : room;
        if (n > 0) {
            batch->pieces[batch->n++] = (am_span){.tensor = span->tensor, .lo = lo, .hi = lo + n};
        }
        room -= n;
        e->next.offset += n;
        if (lo + n == span->hi) {
            e->next = (am_position){.span = e->next.span + 1};
        }
    }
}

/* Copied tensors come from the base, or from the first model that has them. */
static const am_merge_input *copy_input(const am_merge_job *job, int64_t tensor)
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

/* Announce to one input what it will be asked for: everything merged, and what is copied from it.
 */
static int stage_input(am_engine *e, am_batch *batch, const am_merge_input *input, int64_t number,
                       bool is_merged)
{
    int64_t n = 0;
    for (int64_t i = 0; i < batch->n; i++) {
        const int64_t tensor = batch->pieces[i].tensor;
        if (e->job->copy[tensor] ? copy_input(e->job, tensor) == input : is_merged) {
            batch->raw[n++] = batch->pieces[i];
        }
    }
    return am_input_stage(input, batch->raw, n, batch->mapped + number * e->max_pieces);
}

static int stage_batch(am_engine *e, am_batch *batch)
{
    int rc = 0;
    cut_batch(e, batch);
    if (e->job->base != NULL) {
        AM_KEEP(stage_input(e, batch, e->job->base, 0, e->job->method->needs_base));
    }
    for (int t = 0; t < e->job->n_models; t++) {
        AM_KEEP(stage_input(e, batch, &e->job->models[t], t + 1, true));
    }
    return rc;
}

static int copy_piece(am_engine *e, const am_span *piece)
{
    const am_sink *sink = e->job->sink;
    const am_merge_input *input = copy_input(e->job, piece->tensor);
    const int64_t n = piece->hi - piece->lo;
    const int64_t bytes = n * am_dtype_bytes(sink->tensors->t[piece->tensor].dtype);
    AM_ASSERT(input != NULL);
    int rc = input->source->load_raw(input->source->self, input->tensor[piece->tensor], piece->lo,
                                     n, e->out);
    AM_KEEP(sink->store_raw(sink->self, piece->tensor, piece->lo, n, e->out));
    e->result.bytes_read += bytes;
    e->result.bytes_written += bytes;
    return rc;
}

static int load_input(am_engine *e, const am_merge_input *input, const am_span *piece, double *dst)
{
    const am_tensor *tensor = &input->source->tensors->t[input->tensor[piece->tensor]];
    e->result.bytes_read += (piece->hi - piece->lo) * am_dtype_bytes(tensor->dtype);
    return am_input_load(input, piece->tensor, piece->lo, piece->hi - piece->lo,
                         e->job->allow_nonfinite, dst);
}

/* Combine the n elements in the window's buffers into out[n], tile by tile. */
static void combine(am_engine *e, int64_t tensor, int64_t n, int n_models, const int *model,
                    double *out)
{
    const am_merge_job *job = e->job;
    am_tile tile = {.models = n_models, .x = e->x, .model_param = e->model_param};
    tile.param = job->param + tensor * e->n_params;
    for (int k = 0; k < n_models; k++) {
        e->model_param[k] = job->model_param + (tensor * job->n_models + model[k]) * e->n_params;
    }
    for (int64_t at = 0; at < n; at += AM_TILE) {
        tile.n = n - at < AM_TILE ? n - at : AM_TILE;
        tile.base = job->method->needs_base ? e->base + at : NULL;
        tile.out = out + at;
        for (int k = 0; k < n_models; k++) {
            e->x[k] = e->models + k * e->window + at;
        }
        job->method->combine(&tile);
    }
}

/* Load one window of every input that has the tensor, and combine it. */
static int merge_window(am_engine *e, const am_span *window, double *out)
{
    const am_merge_job *job = e->job;
    int present[AM_MAX_MODELS];
    int n_models = 0, rc = 0;
    if (job->method->needs_base) {
        AM_KEEP(load_input(e, job->base, window, e->base));
    }
    for (int t = 0; t < job->n_models; t++) {
        if (job->models[t].tensor[window->tensor] >= 0) {
            AM_KEEP(load_input(e, &job->models[t], window, e->models + n_models * e->window));
            present[n_models++] = t;
        }
    }
    if (rc == 0) {
        combine(e, window->tensor, window->hi - window->lo, n_models, present, out);
    }
    return rc;
}

/* Smallest magnitude that rounds to infinity in the dtype: its largest number and half a step. */
static double overflow_limit(am_dtype dtype)
{
    switch (dtype) {
    case AM_DTYPE_F16:
        return 65520;
    case AM_DTYPE_BF16:
        return 0x1.FFp127;
    case AM_DTYPE_F32:
        return 0x1.FFFFFFp127;
    default:
        return (double)INFINITY;
    }
}

/* Finite inputs must not end as infinities in a narrow output. */
static int check_overflow(const am_engine *e, const am_span *piece)
{
    const am_tensor *tensor = &e->job->sink->tensors->t[piece->tensor];
    const double limit = overflow_limit(tensor->dtype);
    const int64_t n = piece->hi - piece->lo;
    int64_t n_bad = 0, bad = 0;
    for (int64_t i = 0; i < n; i++) {
        n_bad += !(fabs(e->out[i]) < limit);
    }
    if (n_bad == 0 || e->job->allow_nonfinite) {
        return 0;
    }
    while (fabs(e->out[bad]) < limit) {
        bad++;
    }
    return am_fail(
        AM_E_NUMERIC,
        "%s: tensor '%s': element %lld would be %g, which %s cannot hold; choose a wider "
        "dtype or smaller weights",
        e->job->sink->label, tensor->name, (long long)(piece->lo + bad), e->out[bad],
        am_dtype_name(tensor->dtype));
}

static int merge_piece(am_engine *e, const am_span *piece)
{
    const am_sink *sink = e->job->sink;
    const int64_t n = piece->hi - piece->lo;
    int rc = 0;
    for (int64_t at = 0; rc == 0 && at < n; at += e->window) {
        const int64_t lo = piece->lo + at;
        const int64_t hi = piece->hi - lo < e->window ? piece->hi : lo + e->window;
        rc = merge_window(e, &(am_span){.tensor = piece->tensor, .lo = lo, .hi = hi}, e->out + at);
    }
    AM_KEEP(check_overflow(e, piece));
    AM_KEEP(sink->store(sink->self, piece->tensor, piece->lo, n, e->out));
    e->result.bytes_written += n * am_dtype_bytes(sink->tensors->t[piece->tensor].dtype);
    return rc;
}

static int run_batch(am_engine *e, const am_batch *batch)
{
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < batch->n; i++) {
        const am_span *piece = &batch->pieces[i];
        rc = e->job->copy[piece->tensor] ? copy_piece(e, piece) : merge_piece(e, piece);
        e->result.elements += piece->hi - piece->lo;
        if (e->job->progress != NULL) {
            am_progress_add(&e->progress, piece->hi - piece->lo);
        }
    }
    if (e->job->sink->flush != NULL) {
        AM_KEEP(e->job->sink->flush(e->job->sink->self));
    }
    return rc;
}

/* The same number of agreements on every rank; a rank without work passes empty batches. */
static int run_batches_all(MPI_Comm comm, am_engine *e)
{
    int rc = stage_batch(e, &e->batch[0]);
    AM_AGREE(comm);
    for (int64_t b = 0; b < e->n_batches; b++) {
        am_alive("merge");
        if (b + 1 < e->n_batches) {
            AM_KEEP(stage_batch(e, &e->batch[(b + 1) % 2]));
        }
        AM_KEEP(run_batch(e, &e->batch[b % 2]));
        AM_TRY(am_agree_step_all(comm, rc));
    }
cleanup:
    return rc;
}

int am_merge_run_all(MPI_Comm comm, const am_merge_job *job, const am_slice *slice,
                     am_merge_result *result)
{
    am_engine e = {.job = job, .slice = slice, .n_params = count_params(job->method)};
    AM_ASSERT(job->block >= 1 && job->n_models >= 1 && job->n_models <= AM_MAX_MODELS);
    e.block = slice->elements < job->block ? slice->elements : job->block;
    e.window = e.block < AM_WINDOW ? e.block : AM_WINDOW;
    e.max_pieces = slice->n < e.block ? slice->n : e.block; /* of one batch */
    e.n_batches = e.block > 0 ? (slice->elements + e.block - 1) / e.block : 0;
    int rc = prepare(&e);
    AM_AGREE(comm);
    AM_TRY(am_max_i64_all(comm, &e.n_batches, 1));
    if (job->progress != NULL) {
        am_progress_start(&e.progress, job->progress, slice->elements, "elements");
    }
    rc = run_batches_all(comm, &e);
    if (job->progress != NULL) {
        am_progress_end(&e.progress);
    }
cleanup:
    *result = e.result;
    am_arena_destroy(&e.arena);
    return rc;
}
