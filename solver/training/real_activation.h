/* Elementwise functions that products (linear, conv2d) apply in the sweep that adds their bias, and
 * that are layers of their own too. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_REAL_ACTIVATION_H
#define AM_SOLVER_TRAINING_REAL_ACTIVATION_H

#include "solver/training/real.h"

/* relu   max(0, z)                          silu  z / (1 + exp(-z))
 * gelu   z (1 + erf(z / sqrt 2)) / 2        gelu_tanh  its approximation by tanh (GPT-2)
 * sigmoid  1 / (1 + exp(-z)) */
typedef enum am_act {
    AM_ACT_NONE,
    AM_ACT_RELU,
    AM_ACT_TANH,
    AM_ACT_GELU,
    AM_ACT_GELU_TANH,
    AM_ACT_SILU,
    AM_ACT_SIGMOID
} am_act;
#define AM_ACT_CHOICES "none|relu|tanh|gelu|gelu_tanh|silu|sigmoid"

/** Does the derivative need z (true), or is the output enough (relu, tanh, sigmoid, none)?
 * Pure. */
bool AM_R(am_act_needs_z)(am_act act);

/** z [rows,K] += bias [K] (NULL: nothing), then y := act(z). y may be z; where am_act_needs_z, z
 * and y differ and z is left with its bias. */
void AM_R(am_act_forward)(am_act act, int64_t rows, int64_t K, const real *bias, real *z, real *y);

/** out[i] := d[i] act'(.) for n elements; from: z where am_act_needs_z, else y. out may be d. */
void AM_R(am_act_backward)(am_act act, int64_t n, const real *from, const real *d, real *out);

/** The same pair for a layer that keeps its z: forward leaves act'(z + b) in z where
 * am_act_needs_z, and backward, given that array, multiplies. */
void AM_R(am_act_forward_both)(am_act act, int64_t rows, int64_t K, const real *bias, real *z,
                               real *y);
void AM_R(am_act_backward_both)(am_act act, int64_t n, const real *from, const real *d, real *out);

/** The tangent of am_act_backward: out[i] := d_dot[i] act'(.) + d[i] act''(.) z_dot[i] for n
 * elements. from: z and dot: z_dot where am_act_needs_z, else y and y_dot; dot NULL: zero. The
 * second derivative of relu is 0. out may be d_dot. */
void AM_R(am_act_curve)(am_act act, int64_t n, const real *from, const real *dot, const real *d,
                        const real *d_dot, real *out);

/** The same for a layer that keeps its z by the pair above: am_act_bend puts act''(z) z_dot in the
 * place of z where am_act_needs_z, and am_act_curve_both is given act'(z) and that array. */
void AM_R(am_act_bend)(am_act act, int64_t n, real *z, const real *z_dot);
void AM_R(am_act_curve_both)(am_act act, int64_t n, const real *from, const real *dot,
                             const real *d, const real *d_dot, real *out);

/** Variance of initial weights behind which `act` stands: He et al. (2015) for relu and its smooth
 * relatives, Glorot & Bengio (2010) else. Pure. */
double AM_R(am_act_variance)(am_act act, int64_t fan_in, int64_t fan_out);

#endif
