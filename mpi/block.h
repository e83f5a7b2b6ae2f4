/* The small vtables through which io and solver meet without seeing each other, bound by jobs:
 * where blocks of tensors come from, where they go, and where training samples come from.
 * All calls are local (not collective) and return am_error codes.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_BLOCK_H
#define AM_MPI_BLOCK_H

#include "mpi/tensor.h"

/* Half-open element range [lo, hi) of one tensor. */
typedef struct am_span {
    int64_t tensor; /* index in the source's or sink's table */
    int64_t lo, hi; /* elements */
} am_span;

/* A checkpoint to read. Any number of spans may be loaded in any order; staging is a hint that lets
 * a file source read ahead of the loads. */
typedef struct am_source {
    void *self;
    const char *label;              /* borrowed: path or name, for messages */
    const am_tensor_table *tensors; /* borrowed */
    /* Announce that spans[0..n) are loaded next, in this order; they stay valid until the call
     * after the next. May be NULL. */
    int (*stage)(void *self, const am_span *spans, int64_t n);
    /* Keep the bytes of spans[0..n) in memory once they are loaded, as far as there is room, until
     * the next call: they are loaded more than once. May be NULL. */
    int (*hold)(void *self, const am_span *spans, int64_t n);
    /* Bytes of n elements of `tensor` as they are stored, and as they are held. NULL: both are
     * those of its dtype. Pure. */
    void (*weigh)(const void *self, int64_t tensor, int64_t n, int64_t *stored, int64_t *staged);
    /* Elements [lo, lo+n) of `tensor`, converted exactly to f64 (floats) into dst[n]. */
    int (*load)(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst);
    /* The same as raw little-endian bytes of the tensor's own dtype (copies, integer buffers). */
    int (*load_raw)(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst);
    /* The numbers that `load` converts, in host byte order and the tensor's own dtype, without a
     * copy: *raw [n], n <= AM_BORROW, valid until the next call; or NULL: there are none, since
     * values are computed. May be NULL. */
    int (*borrow)(void *self, int64_t tensor, int64_t lo, int64_t n, const void **raw);
    /* What a matrix [first dimension, the others] has beyond that of the source with the label
     * `over`, where it is known as a product left [rows, rank] right [rank, cols]: its rank, -1: it
     * is not (pure); and both factors. over NULL: no tensor is. */
    const char *over; /* borrowed */
    int64_t (*rank)(const void *self, int64_t tensor);
    int (*factors)(void *self, int64_t tensor, double *left, double *right);
} am_source;

enum { AM_BORROW = 4096 };

/** am_source.weigh of any source. Pure. */
static inline void am_source_weigh(const am_source *source, int64_t tensor, int64_t n,
                                   int64_t *stored, int64_t *staged)
{
    if (source->weigh != 0) {
        source->weigh(source->self, tensor, n, stored, staged);
    } else {
        *stored = *staged = n * am_dtype_bytes(source->tensors->t[tensor].dtype);
    }
}

/* A checkpoint to write. Each element is stored exactly once by exactly one rank. */
typedef struct am_sink {
    void *self;
    const char *label;
    const am_tensor_table *tensors; /* borrowed: the output's names, shapes, dtypes */
    /* Round src[n] once, to nearest even, to the tensor's dtype and write. */
    int (*store)(void *self, int64_t tensor, int64_t lo, int64_t n, const double *src);
    int (*store_raw)(void *self, int64_t tensor, int64_t lo, int64_t n, const void *src);
    /* End of a batch: what was stored may be written out and forgotten. May be NULL. */
    int (*flush)(void *self);
} am_sink;

/* Labelled samples in memory or on disk; one split of one task. */
typedef struct am_samples {
    void *self;
    const char *label; /* task name, for messages */
    int64_t n;         /* samples */
    int64_t features;  /* inputs per sample */
    int64_t classes;   /* K */
    int64_t labels;    /* labels a sample: 0 or 1 for one, T for one a position */
    /* Inputs x[count, features] f32 (token ids as whole numbers) and labels y[count, labels] in
     * [0, classes), or -1 where a position does not count, of samples index[0..count). */
    int (*gather)(void *self, const int64_t *index, int64_t count, float *x, int32_t *y);
    /* Say that samples index[0..count) are gathered next, so that they can be read meanwhile. Only
     * helps; replaces what was said before. May be NULL: there is nothing to gain. */
    void (*announce)(void *self, const int64_t *index, int64_t count);
} am_samples;

#endif
