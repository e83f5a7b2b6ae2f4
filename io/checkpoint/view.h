/* A block source over other sources, and a sink over another sink, with other names and other
 * numbers of elements: row ranges of a tensor under a name of their own, a tensor that one
 * checkpoint takes from another. Local. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_VIEW_H
#define AM_IO_CHECKPOINT_VIEW_H

#include "mpi/block.h"

/* Where a tensor of the view begins: element `offset` of tensor `tensor`. */
typedef struct am_view_place {
    int source;     /* index in the view's sources, -1: the view has no such tensor (0 in a sink) */
    int64_t tensor; /* index in its table */
    int64_t offset;
} am_view_place;

typedef struct am_view am_view;

/** A view with the tensors of `tensors`; floats may be of another dtype than in their source, raw
 * loads then round once. Staging reaches source 0; the others are read without read-ahead.
 *
 * tensors, sources [n] and what they point to, place [tensors->n]: borrowed until am_view_free.
 * Memory: two tables of spans, of the largest batch. Errors: AM_E_NOMEM. */
int am_view_create(const am_tensor_table *tensors, int n, const am_source *const *sources,
                   const am_view_place *place, am_view **out);
/** The view as a source; label of source 0. Errors of its calls: those of the sources. */
void am_view_source(am_view *view, am_source *out);
void am_view_free(am_view **view);

/* A sink over another one: tensor i begins at place[i]. */
typedef struct am_sink_view {
    const am_sink *sink;        /* borrowed */
    const am_view_place *place; /* borrowed */
} am_sink_view;

/** tensors: the view's table, borrowed like `view`, which must live as long as *out. */
void am_sink_view_make(const am_sink_view *view, const am_tensor_table *tensors, am_sink *out);

#endif
