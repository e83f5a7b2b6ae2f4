/* A checkpoint in memory: the state of training stored on some ranks and loaded on others.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_TESTS_REF_STATE_H
#define AM_TESTS_REF_STATE_H

#include <stdlib.h>
#include <string.h>
#include "mpi/block.h"
#include "tests/am_test.h"

typedef struct memory {
    const am_tensor_table *tensors;
    unsigned char **data; /* [tensors] */
    int64_t stores;
} memory;

static inline memory memory_make(const am_tensor_table *tensors)
{
    memory m = {.tensors = tensors, .data = calloc((size_t)tensors->n, sizeof *m.data)};
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        m.data[i] = calloc((size_t)(t->numel * am_dtype_bytes(t->dtype)), 1);
    }
    return m;
}

static inline void memory_free(memory *m)
{
    for (int64_t i = 0; i < m->tensors->n; i++) {
        free(m->data[i]);
    }
    free(m->data);
}

static inline int memory_store(void *self, int64_t tensor, int64_t lo, int64_t n, const void *src)
{
    memory *m = self;
    const size_t size = (size_t)am_dtype_bytes(m->tensors->t[tensor].dtype);
    memcpy(m->data[tensor] + (size_t)lo * size, src, (size_t)n * size);
    m->stores++;
    return 0;
}

static inline int memory_load(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    const memory *m = self;
    const size_t size = (size_t)am_dtype_bytes(m->tensors->t[tensor].dtype);
    memcpy(dst, m->data[tensor] + (size_t)lo * size, (size_t)n * size);
    return 0;
}

/* Every element was stored by one rank, the others hold zeros. */
static inline void memory_share_all(memory *m, MPI_Comm comm)
{
    for (int64_t i = 0; i < m->tensors->n; i++) {
        const am_tensor *t = &m->tensors->t[i];
        AM_CHECK_I64(MPI_Allreduce(MPI_IN_PLACE, m->data[i],
                                   (int)(t->numel * am_dtype_bytes(t->dtype)), MPI_UNSIGNED_CHAR,
                                   MPI_BOR, comm),
                     MPI_SUCCESS);
    }
}

#endif
