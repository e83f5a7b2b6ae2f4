/* Sources over sources, sinks over sinks. SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/view.h"
#include <stdlib.h>
#include "io/dtype.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { CONVERT_ELEMENTS = 1024 };

struct am_view {
    const am_tensor_table *tensors;
    const am_source *const *sources;
    const am_view_place *place;
    /* Spans handed to source 0, of this batch and of the last: they stay valid that long; and those
     * that it holds. */
    am_span *spans[3];
    int64_t capacity[3];
    int turn;
};

int am_view_create(const am_tensor_table *tensors, int n, const am_source *const *sources,
                   const am_view_place *place, am_view **out)
{
    am_view *v = am_new(1, sizeof *v, "a view of a checkpoint");
    AM_ASSERT(n >= 1);
    *out = v;
    if (v == NULL) {
        return AM_E_NOMEM;
    }
    *v = (am_view){.tensors = tensors, .sources = sources, .place = place};
    return 0;
}

void am_view_free(am_view **view)
{
    if (*view != NULL) {
        free((*view)->spans[0]);
        free((*view)->spans[1]);
        free((*view)->spans[2]);
        free(*view);
        *view = NULL;
    }
}

/* Those of the spans that are in source 0, in its numbering, into v->spans[to]. */
static int map_spans(am_view *v, int to, const am_span *spans, int64_t n, int64_t *mapped)
{
    if (n > v->capacity[to]) {
        free(v->spans[to]);
        v->spans[to] = am_new(n, sizeof *v->spans[to], "a view's spans");
        v->capacity[to] = v->spans[to] != NULL ? n : 0;
        if (v->spans[to] == NULL) {
            return AM_E_NOMEM;
        }
    }
    *mapped = 0;
    for (int64_t i = 0; i < n; i++) {
        const am_view_place *p = &v->place[spans[i].tensor];
        if (p->source == 0) {
            v->spans[to][(*mapped)++] = (am_span){
                .tensor = p->tensor, .lo = p->offset + spans[i].lo, .hi = p->offset + spans[i].hi};
        }
    }
    return 0;
}

static int view_stage(void *self, const am_span *spans, int64_t n)
{
    am_view *v = self;
    const am_source *first = v->sources[0];
    int64_t mapped = 0;
    if (first->stage == NULL) {
        return 0;
    }
    v->turn ^= 1;
    int rc = map_spans(v, v->turn, spans, n, &mapped);
    return rc != 0 ? rc : first->stage(first->self, v->spans[v->turn], mapped);
}

static int view_hold(void *self, const am_span *spans, int64_t n)
{
    am_view *v = self;
    const am_source *first = v->sources[0];
    int64_t mapped = 0;
    if (first->hold == NULL) {
        return 0;
    }
    int rc = map_spans(v, 2, spans, n, &mapped);
    return rc != 0 ? rc : first->hold(first->self, v->spans[2], mapped);
}

static void view_weigh(const void *self, int64_t tensor, int64_t n, int64_t *stored,
                       int64_t *staged)
{
    const am_view *v = self;
    const am_view_place *p = &v->place[tensor];
    AM_ASSERT(p->source >= 0);
    am_source_weigh(v->sources[p->source], p->tensor, n, stored, staged);
    *staged = p->source == 0 ? *staged : 0;
}

static int view_load(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    const am_view *v = self;
    const am_view_place *p = &v->place[tensor];
    AM_ASSERT(p->source >= 0);
    const am_source *source = v->sources[p->source];
    return source->load(source->self, p->tensor, p->offset + lo, n, dst);
}

static int view_load_raw(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    const am_view *v = self;
    const am_view_place *p = &v->place[tensor];
    AM_ASSERT(p->source >= 0);
    const am_source *source = v->sources[p->source];
    const am_dtype dtype = v->tensors->t[tensor].dtype;
    if (source->tensors->t[p->tensor].dtype == dtype) {
        return source->load_raw(source->self, p->tensor, p->offset + lo, n, dst);
    }
    double wide[CONVERT_ELEMENTS];
    for (int64_t at = 0; at < n; at += CONVERT_ELEMENTS) {
        const int64_t step = n - at < CONVERT_ELEMENTS ? n - at : CONVERT_ELEMENTS;
        int rc = source->load(source->self, p->tensor, p->offset + lo + at, step, wide);
        if (rc != 0) {
            return rc;
        }
        am_dtype_from_f64(dtype, wide, step, (char *)dst + at * am_dtype_bytes(dtype));
    }
    return 0;
}

static int view_borrow(void *self, int64_t tensor, int64_t lo, int64_t n, const void **raw)
{
    const am_view *v = self;
    const am_view_place *p = &v->place[tensor];
    AM_ASSERT(p->source >= 0);
    const am_source *source = v->sources[p->source];
    *raw = NULL;
    return source->borrow != NULL &&
                   source->tensors->t[p->tensor].dtype == v->tensors->t[tensor].dtype
               ? source->borrow(source->self, p->tensor, p->offset + lo, n, raw)
               : 0;
}

void am_view_source(am_view *view, am_source *out)
{
    *out = (am_source){.self = view,
                       .label = view->sources[0]->label,
                       .tensors = view->tensors,
                       .stage = view_stage,
                       .hold = view_hold,
                       .weigh = view_weigh,
                       .load = view_load,
                       .load_raw = view_load_raw,
                       .borrow = view_borrow};
}

/* ---- sinks ---- */

static int sink_store(void *self, int64_t tensor, int64_t lo, int64_t n, const double *src)
{
    const am_sink_view *v = self;
    const am_view_place *p = &v->place[tensor];
    return v->sink->store(v->sink->self, p->tensor, p->offset + lo, n, src);
}

static int sink_store_raw(void *self, int64_t tensor, int64_t lo, int64_t n, const void *src)
{
    const am_sink_view *v = self;
    const am_view_place *p = &v->place[tensor];
    return v->sink->store_raw(v->sink->self, p->tensor, p->offset + lo, n, src);
}

static int sink_flush(void *self)
{
    const am_sink_view *v = self;
    return v->sink->flush != NULL ? v->sink->flush(v->sink->self) : 0;
}

void am_sink_view_make(const am_sink_view *view, const am_tensor_table *tensors, am_sink *out)
{
    *out = (am_sink){.self = (void *)(uintptr_t)view, /* only read */
                     .label = view->sink->label,
                     .tensors = tensors,
                     .store = sink_store,
                     .store_raw = sink_store_raw,
                     .flush = sink_flush};
}
