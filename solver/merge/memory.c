/* Blocks in memory as sources and sinks. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "mpi/error.h"
#include "solver/merge/memory.h"

static int64_t locate(const am_memory *m, int64_t tensor, int64_t lo, int64_t n)
{
    const int64_t at = m->offset[tensor] + lo;
    AM_ASSERT(tensor >= 0 && tensor < m->tensors->n && n >= 0 && at >= 0 && at + n <= m->n);
    return at;
}

static int load(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    const am_memory *m = self;
    const int64_t at = locate(m, tensor, lo, n);
    if (m->dtype == AM_DTYPE_F64) {
        memcpy(dst, (const double *)m->reals + at, (size_t)n * sizeof(double));
        return 0;
    }
    const float *src = (const float *)m->reals + at;
    for (int64_t i = 0; i < n; i++) {
        dst[i] = src[i];
    }
    return 0;
}

static int store(void *self, int64_t tensor, int64_t lo, int64_t n, const double *src)
{
    am_memory *m = self;
    const int64_t at = locate(m, tensor, lo, n);
    if (m->dtype == AM_DTYPE_F64) {
        memcpy((double *)m->reals + at, src, (size_t)n * sizeof(double));
        return 0;
    }
    float *dst = (float *)m->reals + at;
    for (int64_t i = 0; i < n; i++) {
        dst[i] = (float)src[i];
    }
    return 0;
}

static int load_raw(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    const am_memory *m = self;
    const int64_t bytes = am_dtype_bytes(m->dtype);
    const int64_t at = locate(m, tensor, lo, n);
    memcpy(dst, (const char *)m->reals + at * bytes, (size_t)(n * bytes));
    return 0;
}

static int store_raw(void *self, int64_t tensor, int64_t lo, int64_t n, const void *src)
{
    am_memory *m = self;
    const int64_t bytes = am_dtype_bytes(m->dtype);
    const int64_t at = locate(m, tensor, lo, n);
    memcpy((char *)m->reals + at * bytes, src, (size_t)(n * bytes));
    return 0;
}

am_source am_memory_source(am_memory *memory)
{
    AM_ASSERT(memory->dtype == AM_DTYPE_F32 || memory->dtype == AM_DTYPE_F64);
    return (am_source){.self = memory,
                       .label = memory->label,
                       .tensors = memory->tensors,
                       .load = load,
                       .load_raw = load_raw};
}

am_sink am_memory_sink(am_memory *memory)
{
    AM_ASSERT(memory->dtype == AM_DTYPE_F32 || memory->dtype == AM_DTYPE_F64);
    return (am_sink){.self = memory,
                     .label = memory->label,
                     .tensors = memory->tensors,
                     .store = store,
                     .store_raw = store_raw};
}

void am_memory_slice_offsets(const am_slice *slice, const am_tensor_table *tensors, int64_t *offset)
{
    int64_t at = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        offset[i] = 0;
    }
    for (int64_t s = 0; s < slice->n; s++) {
        const am_span *span = &slice->spans[s];
        offset[span->tensor] = at - span->lo;
        at += span->hi - span->lo;
    }
}

void am_memory_identity(int64_t *index, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        index[i] = i;
    }
}
