/* Windows and tiles: a piece of a batch is loaded in f64 window by window, each with all of its
 * inputs and small enough for the cache, and visited tile by tile.
 *
 *   piece   |------------- <= block -------------|
 *   windows |-- 32,768 --|-- 32,768 --|--  tail -|    whole tiles
 *   tiles   |--|--|--|...                             AM_TILE elements, or whole rows
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "mpi/error.h"
#include "solver/merge/input.h"
#include "solver/merge/engine.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- windows ---- */

static int load_models(am_engine *e, const am_span *s, bool is_checked)
{
    const am_merge_job *job = e->job;
    const am_binding *b = &e->bound;
    const am_window *w = &e->window;
    const int64_t n = s->hi - s->lo;
    int rc = 0;
    for (int k = 0; k < b->models; k++) {
        double *to = w->model + k * w->room;
        if (b->absent[k]) {
            memcpy(to, w->base, (size_t)n * sizeof *to);
        } else {
            AM_KEEP(am_input_load(&job->models[b->index[k]], s->tensor, s->lo, n, is_checked, to));
        }
        if (e->method->needs_aux) {
            AM_KEEP(am_input_load(&job->aux[b->index[k]], s->tensor, s->lo, n, job->allow_nonfinite,
                                  w->aux + k * w->room));
        }
    }
    return rc;
}

/* A unit that fits one window is loaded once for all of its visits. */
static int load_window(am_engine *e, const am_span *s, bool is_checked)
{
    am_window *w = &e->window;
    int rc = 0;
    if (w->span.tensor == s->tensor && w->span.lo == s->lo && w->span.hi == s->hi) {
        return 0;
    }
    w->span.tensor = -1;
    if (e->has_base) {
        AM_KEEP(am_input_load(e->job->base, s->tensor, s->lo, s->hi - s->lo, is_checked, w->base));
    }
    AM_KEEP(load_models(e, s, is_checked));
    if (rc == 0) {
        w->span = *s;
    }
    return rc;
}

/* ---- tiles ---- */

static am_tile make_tile(am_engine *e, const am_unit_run *run)
{
    const am_binding *b = &e->bound;
    return (am_tile){.models = b->models,
                     .x = e->window.x,
                     .aux = e->method->needs_aux ? e->window.a : NULL,
                     .param = e->job->param + b->tensor * e->n_params,
                     .model_param = b->model_param,
                     .unit = &run->unit,
                     .layer = b->layer,
                     .layers = e->job->layers,
                     .rng = b->rng,
                     .seen = run->seen.at,
                     .scratch = e->scratch};
}

/* Point the tile at [lo, lo + n) of the tensor, which lies in the window. */
static void aim_tile(const am_engine *e, am_tile *tile, int64_t lo, int64_t n)
{
    const am_window *w = &e->window;
    const am_binding *b = &e->bound;
    const int64_t at = lo - w->span.lo;
    tile->n = n;
    tile->lo = lo;
    tile->rows = b->by_rows ? n / b->cols : 1;
    tile->cols = b->by_rows ? b->cols : n;
    tile->base = e->has_base ? w->base + at : NULL;
    for (int k = 0; k < b->models; k++) {
        w->x[k] = w->model + k * w->room + at;
        w->a[k] = w->aux + (e->method->needs_aux ? k * w->room + at : 0);
    }
}

static void visit_tile(am_engine *e, am_unit_run *run, am_tile *tile, am_visit visit, double *out)
{
    if (visit != AM_VISIT_COMBINE) {
        am_pass_tile(e, run, tile);
    } else if (tile->models == 0) { /* checked: there is a base */
        memcpy(out, tile->base, (size_t)tile->n * sizeof *out);
    } else {
        tile->out = out;
        e->method->combine(tile);
    }
}

/* Sums belong to whole tiles. Elsewhere elements are seen alone, or rows, and tiles are as small as
 * suits the first cache. */
static int64_t tile_step(const am_engine *e, am_visit visit)
{
    enum { SMALL = 1024 };
    return visit == AM_VISIT_SUMS || e->bound.by_rows ? e->bound.tile : SMALL;
}

/* All tiles of the window; out holds what is combined of the window. */
static void visit_window(am_engine *e, am_unit_run *run, am_visit visit, double *out)
{
    am_tile tile = make_tile(e, run);
    const am_span *s = &e->window.span;
    const int64_t step = tile_step(e, visit);
    for (int64_t lo = s->lo, n; lo < s->hi; lo += n) {
        n = least(s->hi - lo, step - lo % step);
        aim_tile(e, &tile, lo, n);
        visit_tile(e, run, &tile, visit, out + (lo - s->lo));
    }
}

/* ---- pieces ---- */

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

static int store_piece(am_engine *e, const am_span *piece)
{
    const am_sink *sink = e->job->sink;
    const int64_t n = piece->hi - piece->lo;
    int rc = check_overflow(e, piece);
    AM_KEEP(sink->store(sink->self, piece->tensor, piece->lo, n, e->out));
    e->result.bytes_written += n * am_dtype_bytes(sink->tensors->t[piece->tensor].dtype);
    return rc;
}

int am_visit_piece(am_engine *e, am_unit_run *run, const am_span *piece, am_visit visit)
{
    int rc = 0;
    if (visit != AM_VISIT_COMBINE && run->count == 0) {
        return 0;
    }
    am_bind(e, piece->tensor);
    const int64_t tile = e->bound.tile;
    const int64_t step = e->window.room < tile ? e->window.room : e->window.room / tile * tile;
    for (int64_t lo = piece->lo; rc == 0 && lo < piece->hi; lo += step) {
        const am_span window = {
            .tensor = piece->tensor, .lo = lo, .hi = least(piece->hi, lo + step)};
        rc = load_window(e, &window, run->is_checked || e->job->allow_nonfinite);
        if (rc == 0) {
            visit_window(e, run, visit, e->out + (lo - piece->lo));
        }
    }
    if (visit == AM_VISIT_COMBINE) {
        AM_KEEP(store_piece(e, piece));
    }
    return rc;
}
