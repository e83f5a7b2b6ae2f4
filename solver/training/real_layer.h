/* The arrays that the functions of a layer (layer.h) work on, and what layers share. Each file in
 * layers/ is one layer, forward, backward, tangent and curve beside each other, plain loops and
 * products over row-major arrays; the program (real_program.h) decides where the arrays lie.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_LAYER_H
#define AM_SOLVER_TRAINING_REAL_LAYER_H

#include "mpi/rng.h"
#include "solver/training/layer.h"
#include "solver/training/real.h"

/* One layer on one micro-batch of B samples. All arrays are borrowed. Backward overwrites dparam
 * (a leaf gradient is made whole in one pass) and dx, or adds to dx[i] where add[i]. */
typedef struct am_layer_args {
    const am_layer_site *site;
    int64_t B;
    const real *x[AM_LAYER_INPUTS]; /* [B, in[i]] */
    const int32_t *ids;             /* [B, in[0]] instead of x[0] where the layer takes ids */
    real *y;                        /* [B, out] */
    const real *param[AM_LAYER_PARAMS];
    void *keep, *scratch;

    real *dy;                  /* [B, out] */
    real *dx[AM_LAYER_INPUTS]; /* NULL: not wanted */
    bool add[AM_LAYER_INPUTS];
    real *dparam[AM_LAYER_PARAMS]; /* NULL: not wanted (frozen) */

    const real *x_dot[AM_LAYER_INPUTS]; /* tangent; NULL: zero */
    const real *param_dot[AM_LAYER_PARAMS];
    real *y_dot;    /* tangent: overwritten; curve: read, NULL: zero */
    void *keep_dot; /* tangent: NULL when no curve follows */

    real *dy_dot;                      /* curve: tangents of dy, dx and dparam */
    real *dx_dot[AM_LAYER_INPUTS];     /* NULL: not wanted */
    real *dparam_dot[AM_LAYER_PARAMS]; /* NULL: not wanted (frozen) */

    bool is_training;      /* drop, take statistics of the batch */
    am_rng rng;            /* keyed by the seed, the step and the layer's name */
    const int64_t *sample; /* [B] number of each sample in its data set: the counter of rng */
    double scale; /* backward, curve: weight of a sample's loss, 1 / samples of the batch */

    /* Loss layers only; logits [B, rows of out, K] are y, with bias param[0] [K]. curve: y as
     * forward left it, y_dot the tangent of the logits without that of the bias; dy_dot may be
     * y_dot. */
    const int32_t *label; /* [B, rows] in [0, K), or -1: not counted */
    double smoothing;
    double *loss;     /* forward: [B] mean over the counted labels of each sample */
    int64_t *counted; /* forward: labels that are not -1 */
    int64_t *correct; /* forward: of these, how many are the largest output */
    bool *hit;        /* forward: [B, rows] which they are; NULL: not wanted */
} am_layer_args;

/** sum[k] over the rows of d [rows,K], made in f64, into out[k]; nothing when out is NULL. */
void AM_R(am_layer_column_sum)(int64_t rows, int64_t K, const real *d, real *out);

/** The arguments with the tangents of dy, dx and dparam in their places: curve of a layer whose
 * backward depends on nothing but dy is backward of these. */
am_layer_args AM_R(am_layer_dots)(const am_layer_args *a);

/** y[i] += x[i]. */
void AM_R(am_layer_sum)(int64_t n, const real *x, real *y);

extern const am_layer *const AM_R(am_layer_table)[]; /* in name order, NULL-terminated */
extern const am_layer AM_R(am_layer_linear), AM_R(am_layer_softmax_xent); /* a head */

#endif
