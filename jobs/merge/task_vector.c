/* SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/task_vector.h"

#include <stdlib.h>
#include <string.h>
#include "io/dtype.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { WINDOW = 65536, RAW_ELEMENTS = 1 << 13 };

struct am_shared_base {
    am_source base, source;
    am_span last; /* what the window holds; tensor -1: nothing */
    double *window;
};

static int load_shared(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    am_shared_base *b = self;
    if (n > WINDOW) {
        return b->base.load(b->base.self, tensor, lo, n, dst);
    }
    if (b->last.tensor != tensor || b->last.lo != lo || b->last.hi != lo + n) {
        b->last.tensor = -1;
        int rc = b->base.load(b->base.self, tensor, lo, n, b->window);
        if (rc != 0) {
            return rc;
        }
        b->last = (am_span){.tensor = tensor, .lo = lo, .hi = lo + n};
    }
    memcpy(dst, b->window, (size_t)n * sizeof *dst);
    return 0;
}

static int load_raw_shared(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    const am_shared_base *b = self;
    return b->base.load_raw(b->base.self, tensor, lo, n, dst);
}

int am_shared_base_create(const am_source *base, am_shared_base **out)
{
    am_shared_base *b = am_new(1, sizeof *b, "a base");
    if (b == NULL) {
        return AM_E_NOMEM;
    }
    *out = b;
    b->base = *base;
    b->last.tensor = -1;
    b->source = (am_source){.self = b,
                            .label = base->label,
                            .tensors = base->tensors,
                            .load = load_shared,
                            .load_raw = load_raw_shared};
    b->window = am_new(WINDOW, sizeof *b->window, "a base");
    return b->window != NULL ? 0 : AM_E_NOMEM;
}

int64_t am_shared_base_bytes(const am_shared_base *base, int64_t load)
{
    return base != NULL && load <= WINDOW ? load * (int64_t)sizeof *base->window : 0;
}

void am_shared_base_free(am_shared_base **base)
{
    if (*base != NULL) {
        free((*base)->window);
        free(*base);
        *base = NULL;
    }
}

const am_source *am_shared_base_source(const am_shared_base *base)
{
    return &base->source;
}

struct am_based_tv {
    const am_source *base;
    am_taskvec *tv;
};

static int load(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    const am_based_tv *b = self;
    int rc = b->base->load(b->base->self, tensor, lo, n, dst);
    if (rc == 0 && am_dtype_is_float(b->base->tensors->t[tensor].dtype)) {
        rc = am_tv_add(b->tv, tensor, lo, n, dst);
    }
    return rc;
}

/* Floats rounded once to the base's own type. */
static int load_raw(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    am_based_tv *b = self;
    const am_dtype dtype = b->base->tensors->t[tensor].dtype;
    if (!am_dtype_is_float(dtype)) {
        return b->base->load_raw(b->base->self, tensor, lo, n, dst);
    }
    double *real = am_new(RAW_ELEMENTS, sizeof *real, "a conversion");
    int rc = real != NULL ? 0 : AM_E_NOMEM;
    for (int64_t at = 0; rc == 0 && at < n; at += RAW_ELEMENTS) {
        const int64_t m = n - at < RAW_ELEMENTS ? n - at : RAW_ELEMENTS;
        rc = load(b, tensor, lo + at, m, real);
        if (rc == 0) {
            am_dtype_from_f64(dtype, real, m, (char *)dst + at * am_dtype_bytes(dtype));
        }
    }
    free(real);
    return rc;
}

static int stage(void *self, const am_span *spans, int64_t n)
{
    const am_based_tv *b = self;
    return am_tv_stage(b->tv, spans, n);
}

static int hold(void *self, const am_span *spans, int64_t n)
{
    const am_based_tv *b = self;
    return am_tv_hold(b->tv, spans, n);
}

static void weigh(const void *self, int64_t tensor, int64_t n, int64_t *stored, int64_t *staged)
{
    const am_based_tv *b = self;
    am_tv_weigh(b->tv, tensor, n, stored, staged);
}

static int64_t rank_of(const void *self, int64_t tensor)
{
    const am_based_tv *b = self;
    return am_tv_rank(b->tv, tensor);
}

static int factors(void *self, int64_t tensor, double *left, double *right)
{
    const am_based_tv *b = self;
    return am_tv_factors(b->tv, tensor, left, right);
}

int am_based_tv_create(am_shared_base *base, am_taskvec *tv, const char *label, am_based_tv **made,
                       am_source *out)
{
    am_based_tv *b = am_new(1, sizeof *b, "a task vector");
    if (b == NULL) {
        return AM_E_NOMEM;
    }
    *made = b;
    *b = (am_based_tv){.base = am_shared_base_source(base), .tv = tv};
    *out = (am_source){.self = b,
                       .label = label,
                       .tensors = b->base->tensors,
                       .stage = stage,
                       .hold = hold,
                       .weigh = weigh,
                       .load = load,
                       .load_raw = load_raw,
                       .over = b->base->label,
                       .rank = rank_of,
                       .factors = factors};
    return 0;
}

void am_based_tv_free(am_based_tv **made)
{
    free(*made);
    *made = NULL;
}
