/* Tiles: the inputs of one are loaded in f64, small enough for the cache, and the tile is visited.
 * What is combined is stored at once.
 *
 *   piece   |------------- <= block -------------|
 *   sums    |----|----|----|----|----|----|----|-|   AM_TILE elements, or whole rows
 *   else    |-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-||   AM_PART elements, or whole rows
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "mpi/error.h"
#include "solver/merge/input.h"
#include "solver/merge/engine.h"

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- inputs ---- */

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

static bool is_same(const am_span *a, const am_span *b)
{
    return a->tensor == b->tensor && a->lo == b->lo && a->hi == b->hi;
}

/* A unit of one tile is loaded once for all of its visits. */
static int load_wide(am_engine *e, const am_span *s, bool is_checked)
{
    am_window *w = &e->window;
    int rc = 0;
    if (is_same(&w->span, s)) {
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

/* Task vectors of the rounded inputs, rounded. `out` is free before a method combines. */
static int load_rounded(am_engine *e, const am_span *s, bool is_checked, am_dtype dtype)
{
    const am_merge_job *job = e->job;
    const am_binding *b = &e->bound;
    am_window *w = &e->window;
    const int64_t n = s->hi - s->lo;
    int rc = 0;
    if (is_same(&w->low_span, s)) {
        return 0;
    }
    w->low_span.tensor = -1;
    AM_KEEP(am_input_load_narrow(job->base, s->tensor, s->lo, n, is_checked, dtype, NULL, e->out,
                                 w->low_base));
    for (int k = 0; rc == 0 && k < b->models; k++) {
        rc = am_input_load_narrow(&job->models[b->index[k]], s->tensor, s->lo, n, is_checked, dtype,
                                  w->low_base, e->out, w->low + k * w->room);
    }
    if (rc == 0) {
        w->low_span = *s;
    }
    return rc;
}

/* Of a unit that decides in a narrow dtype, what the next callback looks at. */
static am_rounded looks_at(const am_engine *e, const am_unit_run *run, am_visit visit)
{
    const bool is_rounded =
        run->unit.narrow != AM_DTYPE_F64 && e->bound.models > 0 && visit != AM_VISIT_GATHER;
    if (!is_rounded) {
        return AM_ROUNDED_NOT;
    }
    return visit == AM_VISIT_COMBINE ? e->method->rounded : e->pass->rounded;
}

static int load_window(am_engine *e, const am_unit_run *run, const am_span *s, bool is_checked,
                       am_visit visit)
{
    const am_rounded rounded = looks_at(e, run, visit);
    int rc = 0;
    if (rounded != AM_ROUNDED_ALONE) {
        AM_KEEP(load_wide(e, s, is_checked));
    }
    if (rc == 0 && rounded != AM_ROUNDED_NOT) {
        rc = load_rounded(e, s, is_checked, run->unit.narrow);
    }
    return rc;
}

/* ---- tiles ---- */

static am_tile make_tile(am_engine *e, const am_unit_run *run)
{
    const am_binding *b = &e->bound;
    return (am_tile){.models = b->models,
                     .aux = e->method->needs_aux ? e->window.a : NULL,
                     .param = e->job->param + b->tensor * e->n_params,
                     .model_param = b->model_param,
                     .unit = &run->unit,
                     .numel = e->job->sink->tensors->t[b->tensor].numel,
                     .layer = b->layer,
                     .layers = e->job->layers,
                     .rng = b->rng,
                     .seen = run->seen.at,
                     .scratch = e->scratch};
}

/* Point the tile at what the window holds of `s`. */
static void aim_tile(const am_engine *e, am_tile *tile, const am_span *s)
{
    const am_window *w = &e->window;
    const am_binding *b = &e->bound;
    const bool is_wide = is_same(&w->span, s), is_rounded = is_same(&w->low_span, s);
    tile->n = s->hi - s->lo;
    tile->lo = s->lo;
    tile->rows = b->by_rows ? tile->n / b->cols : 1;
    tile->cols = b->by_rows ? b->cols : tile->n;
    tile->base = is_wide && e->has_base ? w->base : NULL;
    tile->x = is_wide ? w->x : NULL;
    tile->rounded = is_rounded ? w->rounded : NULL;
    for (int k = 0; k < b->models; k++) {
        w->x[k] = w->model + k * w->room;
        w->a[k] = w->aux + (e->method->needs_aux ? k * w->room : 0);
        w->rounded[k] = w->low + (is_rounded ? k * w->room : 0);
    }
}

static void visit_tile(am_engine *e, am_unit_run *run, am_tile *tile, am_visit visit)
{
    if (visit == AM_VISIT_GATHER) {
        am_dense_gather(e, tile);
    } else if (visit != AM_VISIT_COMBINE) {
        am_pass_tile(e, run, tile);
    } else if (tile->models == 0) { /* checked: there is a base */
        memcpy(e->out, tile->base, (size_t)tile->n * sizeof *e->out);
    } else {
        tile->out = e->out;
        e->method->combine(tile);
    }
}

/* Sums belong to whole tiles. Elsewhere elements are seen alone, or rows, and tiles are as small as
 * suits the first cache. */
static int64_t tile_step(const am_engine *e, am_visit visit)
{
    return visit == AM_VISIT_SUMS || e->bound.by_rows ? e->bound.tile : AM_PART;
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

AM_CLONES static bool is_below(const double *x, int64_t n, double limit)
{
    int64_t above = 0;
    for (int64_t i = 0; i < n; i++) {
        above += !(fabs(x[i]) < limit);
    }
    return above == 0;
}

/* Finite inputs must not end as infinities in a narrow output. */
static int check_overflow(const am_engine *e, const am_span *s)
{
    const am_tensor *tensor = &e->job->sink->tensors->t[s->tensor];
    const double limit = overflow_limit(tensor->dtype);
    int64_t bad = 0;
    if (e->job->allow_nonfinite || is_below(e->out, s->hi - s->lo, limit)) {
        return 0;
    }
    while (fabs(e->out[bad]) < limit) {
        bad++;
    }
    return am_fail(
        AM_E_NUMERIC,
        "%s: tensor '%s': element %lld would be %g, which %s cannot hold; choose a wider "
        "dtype or smaller weights",
        e->job->sink->label, tensor->name, (long long)(s->lo + bad), e->out[bad],
        am_dtype_name(tensor->dtype));
}

int am_store_part(am_engine *e, const am_span *s)
{
    const am_sink *sink = e->job->sink;
    const int64_t n = s->hi - s->lo;
    int rc = check_overflow(e, s);
    AM_KEEP(sink->store(sink->self, s->tensor, s->lo, n, e->out));
    e->result.bytes_written += n * am_dtype_bytes(sink->tensors->t[s->tensor].dtype);
    return rc;
}

int am_visit_piece(am_engine *e, am_unit_run *run, const am_span *piece, am_visit visit)
{
    int rc = 0;
    if (visit < AM_VISIT_COMBINE && run->count == 0) {
        return 0;
    }
    am_bind(e, piece->tensor);
    const bool is_checked = run->is_checked || e->job->allow_nonfinite;
    const int64_t step = tile_step(e, visit);
    am_tile tile = make_tile(e, run);
    for (int64_t lo = piece->lo, hi; rc == 0 && lo < piece->hi; lo = hi) {
        hi = least(piece->hi, lo - lo % step + step);
        const am_span part = {.tensor = piece->tensor, .lo = lo, .hi = hi};
        rc = load_window(e, run, &part, is_checked, visit);
        if (rc == 0) {
            aim_tile(e, &tile, &part);
            visit_tile(e, run, &tile, visit);
        }
        if (rc == 0 && visit == AM_VISIT_COMBINE) {
            rc = am_store_part(e, &part);
        }
    }
    return rc;
}

/* Where in its stride a run lies: anywhere, so that no column of a matrix is preferred. */
static int64_t place_of(int64_t stride_index, int64_t places)
{
    const uint64_t mixed = (uint64_t)stride_index * UINT64_C(0x9E3779B97F4A7C15);
    return (int64_t)((mixed >> 32) % (uint64_t)places);
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int am_sample_piece(am_engine *e, am_unit_run *run, const am_span *piece, bool is_staged)
{
    enum { NEAR = 2048, FAR = 4096, NEAR_RUN = 64, FAR_RUN = 256, FAR_RUNS = 4096 };
    const int64_t far = most(FAR, run->unit.n / FAR_RUNS / FAR * FAR);
    const int64_t stride = is_staged ? NEAR : far, n = is_staged ? NEAR_RUN : FAR_RUN;
    int rc = 0;
    if (run->count == 0) {
        return 0;
    }
    am_bind(e, piece->tensor);
    am_tile tile = make_tile(e, run);
    for (int64_t k = piece->lo / stride; rc == 0 && k * stride < piece->hi; k++) {
        const int64_t at = k * stride + place_of(k, stride / n) * n;
        const am_span part = {
            .tensor = piece->tensor, .lo = most(at, piece->lo), .hi = least(at + n, piece->hi)};
        if (part.lo < part.hi) {
            /* the sweep looks for what is not finite */
            AM_KEEP(load_window(e, run, &part, true, AM_VISIT_ORDER));
            if (rc == 0) {
                aim_tile(e, &tile, &part);
                visit_tile(e, run, &tile, AM_VISIT_ORDER);
            }
        }
    }
    e->window.span.tensor = e->window.low_span.tensor = -1;
    return rc;
}
