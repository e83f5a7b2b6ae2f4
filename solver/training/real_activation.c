/* Elementwise functions and their derivatives. Comparisons let NaN through, so that a bad input
 * reaches the loss and is seen there. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/real_activation.h"

#include <stddef.h>
#include "solver/training/real_math.h"

static const real AM_SQRT_HALF = (real)0.70710678118654752440;
static const real AM_SQRT_2_BY_PI = (real)0.79788456080286535588;
static const real AM_GELU_CUBE = (real)0.044715;

bool AM_R(am_act_needs_z)(am_act act)
{
    return act == AM_ACT_GELU || act == AM_ACT_GELU_TANH || act == AM_ACT_SILU;
}

double AM_R(am_act_variance)(am_act act, int64_t fan_in, int64_t fan_out)
{
    const double C = (double)fan_in, K = (double)fan_out;
    const bool is_even = act == AM_ACT_NONE || act == AM_ACT_TANH || act == AM_ACT_SIGMOID;
    return is_even ? 2 / (C + K) : 2 / C;
}

static inline real am_relu(real z)
{
    return z < 0 ? 0 : z;
}

static inline real am_gelu(real z)
{
    return (real)0.5 * z * (1 + am_real_erf(z * AM_SQRT_HALF));
}

static inline real am_gelu_tanh(real z)
{
    return (real)0.5 * z * (1 + am_real_tanh(AM_SQRT_2_BY_PI * (z + AM_GELU_CUBE * z * z * z)));
}

static inline real am_silu(real z)
{
    return z / (1 + am_real_exp(-z));
}

static inline real am_sigmoid(real z)
{
    return 1 / (1 + am_real_exp(-z));
}

static inline real am_none(real z)
{
    return z;
}

/* One row in place, or from z to y where the derivative needs z. The loops are the whole point:
 * each is vectorised with its function inside. */
#define AM_ACT_IN_PLACE(name)                                                                      \
    AM_CLONES static void name##_rows(int64_t rows, int64_t K, const real *bias, real *z)          \
    {                                                                                              \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            real *restrict row = z + r * K;                                                        \
            for (int64_t k = 0; bias != NULL && k < K; k++) {                                      \
                row[k] = name(row[k] + bias[k]);                                                   \
            }                                                                                      \
            for (int64_t k = 0; bias == NULL && k < K; k++) {                                      \
                row[k] = name(row[k]);                                                             \
            }                                                                                      \
        }                                                                                          \
    }
#define AM_ACT_KEEPING(name)                                                                       \
    AM_CLONES static void name##_rows(int64_t rows, int64_t K, const real *bias, real *z, real *y) \
    {                                                                                              \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            real *restrict row = z + r * K, *restrict out = y + r * K;                             \
            for (int64_t k = 0; bias != NULL && k < K; k++) {                                      \
                row[k] += bias[k];                                                                 \
            }                                                                                      \
            for (int64_t k = 0; k < K; k++) {                                                      \
                out[k] = name(row[k]);                                                             \
            }                                                                                      \
        }                                                                                          \
    }
AM_ACT_IN_PLACE(am_none)
AM_ACT_IN_PLACE(am_relu)
AM_ACT_IN_PLACE(am_real_tanh)
AM_ACT_IN_PLACE(am_sigmoid)
AM_ACT_KEEPING(am_gelu)
AM_ACT_KEEPING(am_gelu_tanh)
AM_ACT_KEEPING(am_silu)

void AM_R(am_act_forward)(am_act act, int64_t rows, int64_t K, const real *bias, real *z, real *y)
{
    switch (act) {
    case AM_ACT_NONE:
        if (bias != NULL) {
            am_none_rows(rows, K, bias, y);
        }
        break;
    case AM_ACT_RELU:
        am_relu_rows(rows, K, bias, y);
        break;
    case AM_ACT_TANH:
        am_real_tanh_rows(rows, K, bias, y);
        break;
    case AM_ACT_GELU:
        am_gelu_rows(rows, K, bias, z, y);
        break;
    case AM_ACT_GELU_TANH:
        am_gelu_tanh_rows(rows, K, bias, z, y);
        break;
    case AM_ACT_SILU:
        am_silu_rows(rows, K, bias, z, y);
        break;
    case AM_ACT_SIGMOID:
        am_sigmoid_rows(rows, K, bias, y);
        break;
    }
}

static inline real am_relu_slope(real y)
{
    return y > 0 ? 1 : 0;
}

static inline real am_tanh_slope(real y)
{
    return (1 - y) * (1 + y);
}

static inline real am_sigmoid_slope(real y)
{
    return y * (1 - y);
}

/* Phi(z) + z phi(z) */
static inline real am_gelu_slope(real z)
{
    const real phi = (real)0.39894228040143267794 * am_real_exp((real)-0.5 * z * z);
    return (real)0.5 * (1 + am_real_erf(z * AM_SQRT_HALF)) + z * phi;
}

static inline real am_gelu_tanh_slope(real z)
{
    const real t = am_real_tanh(AM_SQRT_2_BY_PI * (z + AM_GELU_CUBE * z * z * z));
    const real inner = AM_SQRT_2_BY_PI * (1 + 3 * AM_GELU_CUBE * z * z);
    return (real)0.5 * (1 + t) + (real)0.5 * z * (1 - t) * (1 + t) * inner;
}

static inline real am_silu_slope(real z)
{
    const real s = 1 / (1 + am_real_exp(-z));
    return s * (1 + z * (1 - s));
}

/* y := act(z + b) and z := act'(z + b) in one sweep: what they share is made once. */
#define AM_ACT_BOTH(name)                                                                          \
    AM_CLONES static void name##_rows_both(int64_t rows, int64_t K, const real *bias, real *z,     \
                                           real *y)                                                \
    {                                                                                              \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            real *restrict row = z + r * K, *restrict out = y + r * K;                             \
            for (int64_t k = 0; bias != NULL && k < K; k++) {                                      \
                row[k] += bias[k];                                                                 \
            }                                                                                      \
            for (int64_t k = 0; k < K; k++) {                                                      \
                const real at = row[k];                                                            \
                out[k] = name(at);                                                                 \
                row[k] = name##_slope(at);                                                         \
            }                                                                                      \
        }                                                                                          \
    }
AM_ACT_BOTH(am_gelu)
AM_ACT_BOTH(am_gelu_tanh)
AM_ACT_BOTH(am_silu)

void AM_R(am_act_forward_both)(am_act act, int64_t rows, int64_t K, const real *bias, real *z,
                               real *y)
{
    switch (act) {
    case AM_ACT_GELU:
        am_gelu_rows_both(rows, K, bias, z, y);
        break;
    case AM_ACT_GELU_TANH:
        am_gelu_tanh_rows_both(rows, K, bias, z, y);
        break;
    case AM_ACT_SILU:
        am_silu_rows_both(rows, K, bias, z, y);
        break;
    case AM_ACT_NONE:
    case AM_ACT_RELU:
    case AM_ACT_TANH:
    case AM_ACT_SIGMOID:
        AM_R(am_act_forward)(act, rows, K, bias, z, y);
    }
}

#define AM_ACT_BACKWARD(name)                                                                      \
    AM_CLONES static void name##s(int64_t n, const real *from, const real *d, real *out)           \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            out[i] = d[i] * name(from[i]);                                                         \
        }                                                                                          \
    }
AM_ACT_BACKWARD(am_tanh_slope)
AM_ACT_BACKWARD(am_sigmoid_slope)
AM_ACT_BACKWARD(am_gelu_slope)
AM_ACT_BACKWARD(am_gelu_tanh_slope)
AM_ACT_BACKWARD(am_silu_slope)

/* A choice and not a product: a gradient that is not finite stops here with the sample it is of. */
AM_CLONES static void am_relu_slopes(int64_t n, const real *y, const real *d, real *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = am_relu_slope(y[i]) != 0 ? d[i] : 0;
    }
}

void AM_R(am_act_backward)(am_act act, int64_t n, const real *from, const real *d, real *out)
{
    switch (act) {
    case AM_ACT_NONE:
        for (int64_t i = 0; out != d && i < n; i++) {
            out[i] = d[i];
        }
        break;
    case AM_ACT_RELU:
        am_relu_slopes(n, from, d, out);
        break;
    case AM_ACT_TANH:
        am_tanh_slopes(n, from, d, out);
        break;
    case AM_ACT_GELU:
        am_gelu_slopes(n, from, d, out);
        break;
    case AM_ACT_GELU_TANH:
        am_gelu_tanh_slopes(n, from, d, out);
        break;
    case AM_ACT_SILU:
        am_silu_slopes(n, from, d, out);
        break;
    case AM_ACT_SIGMOID:
        am_sigmoid_slopes(n, from, d, out);
        break;
    }
}

AM_CLONES static void am_times(int64_t n, const real *slope, const real *d, real *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = d[i] * slope[i];
    }
}

void AM_R(am_act_backward_both)(am_act act, int64_t n, const real *from, const real *d, real *out)
{
    if (AM_R(am_act_needs_z)(act)) {
        am_times(n, from, d, out);
    } else {
        AM_R(am_act_backward)(act, n, from, d, out);
    }
}

/* ---- second derivatives ---- */

/* act''(z) / act'(z), made of y: what a tangent of y is multiplied with. */
static inline real am_tanh_bend(real y)
{
    return -2 * y;
}

static inline real am_sigmoid_bend(real y)
{
    return 1 - 2 * y;
}

/* (2 - z^2) phi(z) */
static inline real am_gelu_bend(real z)
{
    return (2 - z * z) * (real)0.39894228040143267794 * am_real_exp((real)-0.5 * z * z);
}

/* t = tanh u, u = c (z + a z^3):  t' + z t'' / 2 with t' = (1 - t^2) u', t'' = (1 - t^2) u'' -
 * 2 t t' u' */
static inline real am_gelu_tanh_bend(real z)
{
    const real t = am_real_tanh(AM_SQRT_2_BY_PI * (z + AM_GELU_CUBE * z * z * z));
    const real u1 = AM_SQRT_2_BY_PI * (1 + 3 * AM_GELU_CUBE * z * z);
    const real u2 = AM_SQRT_2_BY_PI * 6 * AM_GELU_CUBE * z;
    const real slope = (1 - t) * (1 + t);
    return slope * (u1 + (real)0.5 * z * (u2 - 2 * t * u1 * u1));
}

/* s = sigmoid z:  s (1 - s) (2 + z (1 - 2 s)) */
static inline real am_silu_bend(real z)
{
    const real s = 1 / (1 + am_real_exp(-z));
    return s * (1 - s) * (2 + z * (1 - 2 * s));
}

#define AM_ACT_CURVE(name)                                                                         \
    AM_CLONES static void name##_curves(int64_t n, const real *from, const real *dot,              \
                                        const real *d, const real *d_dot, real *out)               \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            out[i] = d_dot[i] * name##_slope(from[i]) + d[i] * name##_bend(from[i]) * dot[i];      \
        }                                                                                          \
    }
AM_ACT_CURVE(am_tanh)
AM_ACT_CURVE(am_sigmoid)
AM_ACT_CURVE(am_gelu)
AM_ACT_CURVE(am_gelu_tanh)
AM_ACT_CURVE(am_silu)

void AM_R(am_act_curve)(am_act act, int64_t n, const real *from, const real *dot, const real *d,
                        const real *d_dot, real *out)
{
    if (dot == NULL || act == AM_ACT_NONE || act == AM_ACT_RELU) {
        AM_R(am_act_backward)(act, n, from, d_dot, out);
        return;
    }
    switch (act) {
    case AM_ACT_NONE:
    case AM_ACT_RELU:
        break;
    case AM_ACT_TANH:
        am_tanh_curves(n, from, dot, d, d_dot, out);
        break;
    case AM_ACT_GELU:
        am_gelu_curves(n, from, dot, d, d_dot, out);
        break;
    case AM_ACT_GELU_TANH:
        am_gelu_tanh_curves(n, from, dot, d, d_dot, out);
        break;
    case AM_ACT_SILU:
        am_silu_curves(n, from, dot, d, d_dot, out);
        break;
    case AM_ACT_SIGMOID:
        am_sigmoid_curves(n, from, dot, d, d_dot, out);
        break;
    }
}

#define AM_ACT_BEND(name)                                                                          \
    AM_CLONES static void name##_bends(int64_t n, real *z, const real *z_dot)                      \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            z[i] = name##_bend(z[i]) * z_dot[i];                                                   \
        }                                                                                          \
    }
AM_ACT_BEND(am_gelu)
AM_ACT_BEND(am_gelu_tanh)
AM_ACT_BEND(am_silu)

void AM_R(am_act_bend)(am_act act, int64_t n, real *z, const real *z_dot)
{
    switch (act) {
    case AM_ACT_GELU:
        am_gelu_bends(n, z, z_dot);
        break;
    case AM_ACT_GELU_TANH:
        am_gelu_tanh_bends(n, z, z_dot);
        break;
    case AM_ACT_SILU:
        am_silu_bends(n, z, z_dot);
        break;
    case AM_ACT_NONE:
    case AM_ACT_RELU:
    case AM_ACT_TANH:
    case AM_ACT_SIGMOID:
        break;
    }
}

AM_CLONES static void am_times_curve(int64_t n, const real *slope, const real *bend, const real *d,
                                     const real *d_dot, real *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = d_dot[i] * slope[i] + d[i] * bend[i];
    }
}

void AM_R(am_act_curve_both)(am_act act, int64_t n, const real *from, const real *dot,
                             const real *d, const real *d_dot, real *out)
{
    if (AM_R(am_act_needs_z)(act)) {
        am_times_curve(n, from, dot, d, d_dot, out);
    } else {
        AM_R(am_act_curve)(act, n, from, dot, d, d_dot, out);
    }
}
