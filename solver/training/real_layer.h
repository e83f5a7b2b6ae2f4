/* Layers: each file in layers/ is one layer, forward and backward beside each other, and exports
 * one `const am_layer am_layer_<file>` per real type. Plain loops and products over row-major
 * arrays; the network (real_pass.h) decides where the arrays lie.
 *
 * A product adds no bias: the layer behind it does, in the same sweep as its own function, and
 * makes the bias gradient in the sweep that makes its own gradient.
 *
 *     x [B,C] --linear--> y [B,K] --relu: y := max(0, y + bias)--> x of the next product
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_LAYER_H
#define AM_SOLVER_TRAINING_REAL_LAYER_H

#include <stdbool.h>
#include <stdint.h>
#include "solver/training/real.h"

/* Arrays of one layer on one micro-batch; a layer uses those that it names. All are borrowed and
 * overwritten, never added to: a leaf gradient is made whole in one pass. */
typedef struct am_layer_args {
    int64_t B, C, K;   /* rows, inputs, outputs; in-place layers ignore C */
    const real *param; /* linear: weight [K,C]; others: bias [K] */
    const real *x;     /* [B,C] input; in-place layers: unused */
    real *y;           /* [B,K] output; in-place layers: input too */
    real *dy;          /* [B,K] gradient of y; in-place layers turn it into that of their input */
    real *dx;          /* [B,C] gradient of x; NULL: not wanted */
    real *dparam;      /* as param; NULL: not wanted */
    /* Loss layers only. */
    const int32_t *label; /* [B] in [0, K) */
    double scale;         /* backward: weight of a sample's loss, 1 / samples of the batch */
    double *loss;         /* forward: [B] cross-entropy of each sample */
    int64_t *correct;     /* forward: number of samples whose largest output is the label's */
} am_layer_args;

typedef struct am_layer {
    const char *name, *summary;
    bool is_loss;
    void (*forward)(const am_layer_args *a);
    /* Needs y (and x) as forward left them. */
    void (*backward)(const am_layer_args *a);
} am_layer;

/** dparam[k] = sum over b of dy[b,k], in f64; nothing when dparam is NULL. For layers with a bias.
 */
void AM_R(am_layer_bias_gradient)(const am_layer_args *a);

extern const am_layer AM_R(am_layer_linear), AM_R(am_layer_relu), AM_R(am_layer_tanh),
    AM_R(am_layer_softmax_xent);
extern const am_layer *const AM_R(am_layer_table)[]; /* NULL-terminated */

#endif
