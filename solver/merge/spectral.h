/* What methods on matrices share: which tensors are matrices, what the others get, and steps on
 * task vectors [m,n]. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_SPECTRAL_H
#define AM_SOLVER_MERGE_SPECTRAL_H

#include "solver/merge/method.h"

/* The first parameters of every such method; its own follow. */
enum { AM_SPECTRAL_LAMBDA, AM_SPECTRAL_OTHERS, AM_SPECTRAL_ON, AM_SPECTRAL_FOLD, AM_SPECTRAL_OWN };

#define AM_SPECTRAL_PARAMS(others)                                                                 \
    [AM_SPECTRAL_LAMBDA] = {.key = "lambda",                                                       \
                            .fallback = 1,                                                         \
                            .low = -100,                                                           \
                            .high = 100,                                                           \
                            .help = "factor of the merged task vector"},                           \
    [AM_SPECTRAL_OTHERS] = {.key = "others",                                                       \
                            .fallback = (others),                                                  \
                            .low = -100,                                                           \
                            .high = 100,                                                           \
                            .help = "tensors that are no matrices get this factor of the mean "    \
                                    "task vector; 0: they stay the base's"},                       \
    [AM_SPECTRAL_ON] = {.key = "spectral",                                                         \
                        .is_bool = true,                                                           \
                        .fallback = 1,                                                             \
                        .help = "false: a matrix is no matrix (an embedding, say)"},               \
    [AM_SPECTRAL_FOLD] = {.key = "fold",                                                           \
                          .is_bool = true,                                                         \
                          .help = "convolutions and the like are matrices too, [out, the rest]"}

#define AM_SPECTRAL_FIELDS                                                                         \
    .needs_base = true, .min_models = 1, .is_dense = am_spectral_is_dense,                         \
    .combine = am_spectral_combine

/* A task vector as a matrix: rows, columns, the smaller of them; models. */
typedef struct am_spectral_size {
    int64_t m, n, k;
    int models;
    const am_layout *on; /* of the unit */
} am_spectral_size;

am_spectral_size am_spectral_size_of(const am_unit *unit);
/** Two dimensions, or with `fold` more; not with `spectral: false`. */
bool am_spectral_is_dense(const am_unit *unit);
/** What no matrix is: base + lambda others mean_t (x_t - base). */
void am_spectral_combine(const am_tile *tile);
/** out = sum of the task vectors. */
void am_spectral_sum(const am_dense *matrix, am_matrix out);
/** a *= lambda of the unit. */
void am_spectral_scale(const am_dense *matrix, am_matrix a);
/** Directions for a share of the smaller dimension: at least one, at most all of them. */
int64_t am_spectral_directions(double share, int64_t k);

/* Singular directions of several matrices side by side: left [m,room] by columns, right [room,n] by
 * rows. */
typedef struct am_directions {
    am_matrix left, right;
    double *value; /* [room] */
    int64_t count;
} am_directions;

/** For `room` directions of matrices [m,n] that lie as `like` does, from an arena; the values are
 * whole. */
am_directions am_directions_take(am_arena *work, am_matrix like, int64_t m, int64_t n,
                                 int64_t room);
int64_t am_directions_bytes(const am_layout *on, int64_t m, int64_t n, int64_t room);
/** Append the `most` leading directions of a [m,n], which is destroyed, or those whose singular
 * values are more than rounding: the others are arbitrary, and published code takes whatever the
 * library gives. There is room for `most` <= min(m, n). of: length of what `a` was computed from by
 * subtraction, 0: it was not.
 * am_directions_add_bytes of `work`. Errors: those of am_svd. */
int am_directions_add(am_arena *work, am_matrix a, double of, int64_t most, am_directions *d);
int64_t am_directions_add_bytes(const am_layout *on, int64_t m, int64_t n, int64_t most);
/** Make left and right orthonormal: their polar factors. am_directions_turn_bytes of `work`.
 * Errors: those of am_polar. */
int am_directions_turn(am_arena *work, am_directions *d);
int64_t am_directions_turn_bytes(const am_layout *on, int64_t m, int64_t n, int64_t room);
/** out = left diag(value) right; value is worked into right. */
void am_directions_multiply(const am_directions *d, am_matrix out);
/** Turned, multiplied, scaled by lambda: the result of the matrix. am_directions_turn_bytes of its
 * work. Errors: those of am_polar. */
int am_directions_merge(const am_dense *matrix, am_directions *d);

#endif
