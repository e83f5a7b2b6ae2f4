/* Twins: what a task's model has beside the shared one, theta_t - theta*, compressed. A tensor of
 * two or more dimensions, as a matrix [first dimension, all others], keeps its leading singular
 * directions or its largest elements; vectors are kept whole, and a matrix of which these (numbers
 * and indices) are no less than all. Everything is local and pure: a rank
 * that has a tensor compresses it. Source: Lu et al. 2024 (arXiv:2406.15479), section 3.2;
 * differs: one direction, and one element, stays at least.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_TWIN_H
#define AM_SOLVER_MERGE_TWIN_H

#include "mpi/tensor.h"
#include "solver/linalg/matrix.h"

typedef enum am_twin_way { AM_TWIN_SVD, AM_TWIN_MAGNITUDE, AM_TWIN_WHOLE } am_twin_way;

/* How a tensor is kept; values of a whole one in row order.
 *   SVD        values: u [m,kept], s [kept], vt [kept,n]
 *   MAGNITUDE  values: [kept], index: [kept] rising, counted in row order */
typedef struct am_twin_form {
    am_twin_way way;
    int64_t m, n, kept;
    int64_t value, index;    /* where they begin */
    int64_t values, indices; /* how many */
} am_twin_form;

typedef struct am_twin_layout {
    int64_t n;               /* tensors */
    am_twin_form *form;      /* [n] owned */
    int64_t values, indices; /* of all tensors */
    int64_t largest;         /* elements of the largest tensor */
    int64_t work_bytes;      /* that compress and expand take of an arena at most */
} am_twin_layout;

/** density: share of the singular directions, or of the elements, that stay: floor, at least one.
 * Errors: AM_E_NOMEM. out: freed by am_twin_layout_free, also after an error. */
int am_twin_layout_make(const am_tensor_table *tensors, am_twin_way way, double density,
                        am_twin_layout *out);
void am_twin_layout_free(am_twin_layout *layout); /* accepts a zeroed one */

/** Compress delta [m n], which is destroyed, into value [values] and index [indices]. Equal
 * magnitudes: the first ones stay. Errors: those of am_svd. */
int am_twin_compress(am_arena *work, const am_twin_form *form, double *delta, double *value,
                     int64_t *index);
/** What was kept, as delta [m n]. */
void am_twin_expand(am_arena *work, const am_twin_form *form, const double *value,
                    const int64_t *index, double *delta);

#endif
