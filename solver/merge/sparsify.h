/* Task vectors with only some of their elements kept: the largest (ties), a band of magnitudes
 * (breadcrumbs), a random part (dare), a random part by rank (della). Each sparsifier writes what
 * is left of one task vector of a tile, with zeros elsewhere; the passes that it needs before that
 * are listed beside it. What becomes of sparse task vectors is solver/merge/consensus.h.
 *
 * Densities outside (0, 1) mean nothing or everything. Magnitudes are compared in f32, equal ones
 * by their index. All functions are local and pure.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_SPARSIFY_H
#define AM_SOLVER_MERGE_SPARSIFY_H

#include "solver/merge/method.h"

/* First parameters of every method of the family; a method's own follow from AM_SPARSE_OWN. */
enum {
    AM_SPARSE_WEIGHT,
    AM_SPARSE_DENSITY,
    AM_SPARSE_LAMBDA,
    AM_SPARSE_NORMALIZE,
    AM_SPARSE_RESCALE,
    AM_SPARSE_INT8_MASK,
    AM_SPARSE_OWN
};

/* Scratch vectors that a sparsifier works in, behind the `models` vectors of its callers. */
enum { AM_SPARSE_WORK = 2 };

/** What is left of task vector t of a tile: kept [n]. */
typedef void am_sparsify(const am_tile *tile, int t, double *kept);

/** delta[n] = model t - base. */
void am_task_vector(const am_tile *tile, int t, double *delta);
/** sum[n] = sum over the models of the task vectors; work [n]. */
void am_sum_task_vectors(const am_tile *tile, double *work, double *sum);
/** Order of magnitudes: key[n] = |delta| in f32. */
void am_magnitude_keys(const double *delta, int64_t n, float *key);

/** The density * n largest of every unit; mergekit keeps one at least, `paper` one more and all
 * that equal the last one (the published threshold). Pass ORDER: count, keys, cuts. */
void am_sparsify_top(const am_tile *tile, int t, double *kept);
int am_top_count(const am_unit *unit);
void am_top_keys(const am_tile *tile, float *const *key);
int am_top_cuts(const am_unit *unit, am_cut *cut);

/** Neither the gamma * n largest nor the smallest; density * n stay. mergekit takes whole units
 * and loses all of them when gamma * n < 1, `paper` takes the rows of a tensor alone. Pass ORDER:
 * count, keys, cuts; tiles by rows. */
void am_sparsify_band(const am_tile *tile, int t, double *kept);
bool am_band_by_rows(const am_unit *unit);
int am_band_count(const am_unit *unit);
void am_band_keys(const am_tile *tile, float *const *key);
int am_band_cuts(const am_unit *unit, am_cut *cut);
enum { AM_BAND_GAMMA = AM_SPARSE_OWN };

/** Every element with probability density. `paper` and rescale: divided by density. No pass. */
void am_sparsify_random(const am_tile *tile, int t, double *kept);
/** What am_norms_sums of solver/merge/consensus.h gives for it, in one sweep: sum[2 t] += L1 norm
 * of task vector t, sum[2 t + 1] += of what is kept of it, not divided. */
void am_random_norms(const am_tile *tile, double *sum);

/** Every element with a probability that grows with its rank in the row, from density - epsilon to
 * density + epsilon. `paper` and rescale: divided by that probability. No pass; tiles by rows.
 * Rows run along the second dimension, as mergekit's do; a vector is one row, and an element that
 * has no other in its row has probability density. */
void am_sparsify_ranks(const am_tile *tile, int t, double *kept);
bool am_ranks_by_rows(const am_unit *unit);
const char *am_ranks_check(const am_tile *tile);
enum { AM_RANKS_EPSILON = AM_SPARSE_OWN };

/* A parameter of methods that can also give the model of one task, and its check. */
#define AM_TASK_PARAM                                                                              \
    {                                                                                              \
        .key = "task", .per_model = true, .is_bool = true,                                         \
        .help = "make the model of this task instead of the merged one"                            \
    }
const char *am_check_one_task(const am_tile *tile, int param);

#endif
