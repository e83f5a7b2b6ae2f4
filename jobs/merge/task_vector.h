/* A base with a stored task vector as a block source: differences are added as blocks are read.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_TASK_VECTOR_H
#define AM_JOBS_MERGE_TASK_VECTOR_H

#include "io/checkpoint/taskvec.h"

/* The base of several task vectors: they ask for the same elements one after the other, which are
 * then read and converted once. */
typedef struct am_shared_base am_shared_base;

/** Wrap `base` (copied; its calls are used for the life of the wrapper). Local. Memory: a window of
 * 65,536 f64. Errors: AM_E_NOMEM. */
int am_shared_base_create(const am_source *base, am_shared_base **out);
void am_shared_base_free(am_shared_base **base); /* accepts a pointer to NULL */
/** Bytes that loads of `load` elements touch; 0 for NULL. Pure. */
int64_t am_shared_base_bytes(const am_shared_base *base, int64_t load);
const am_source *am_shared_base_source(const am_shared_base *base);

typedef struct am_based_tv am_based_tv;

/** A source that gives base + task vector, in f64; tensors that are not floats are the base's.
 *
 * base, tv  borrowed; the base is loaded through the wrapper and staged by whoever stages it for
 *           itself. out: valid until am_based_tv_free. Local. Errors: AM_E_NOMEM. */
int am_based_tv_create(am_shared_base *base, am_taskvec *tv, const char *label, am_based_tv **made,
                       am_source *out);
void am_based_tv_free(am_based_tv **made); /* accepts a pointer to NULL */

#endif
