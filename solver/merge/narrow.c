/* Decisions in bf16 and f16. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/narrow.h"

#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "mpi/lanes.h"

am_dtype am_narrow_of(am_dtype work, am_semantics semantics, am_scope scope)
{
    const bool is_narrow = work == AM_DTYPE_BF16 || work == AM_DTYPE_F16;
    return is_narrow && semantics == AM_SEMANTICS_MERGEKIT && scope == AM_SCOPE_TENSOR
               ? work
               : AM_DTYPE_F64;
}

/* Without the low `bits` of the significand, to the nearest, ties to even. NaN must have zeros
 * there, as what comes of numbers without them has. */
AM_INLINE float drop_bits(float x, int bits)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u = (u + (((uint32_t)1 << (bits - 1)) - 1 + ((u >> bits) & 1))) >> bits << bits;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Any NaN stays one. */
AM_INLINE float quiet(float x)
{
    return x == x ? x : (float)NAN;
}

AM_INLINE float of_bf16(float x)
{
    return drop_bits(x, 16);
}

/* Subnormal numbers of f16 are multiples of 2^-24, as f32 at 0.75 are. */
AM_INLINE float of_f16(float x)
{
    const bool is_small = x < 0x1p-14F && x > -0x1p-14F;
    const float shifted = x + 0.75F, dropped = drop_bits(x, 13);
    return is_small ? shifted - 0.75F : dropped;
}

#define AM_ROUND(name, round)                                                                      \
    AM_CLONES static void name(float *x, int64_t n)                                                \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            x[i] = round(quiet(x[i]));                                                             \
        }                                                                                          \
    }

AM_ROUND(to_bf16, of_bf16)
AM_ROUND(to_f16, of_f16)

void am_narrow(am_dtype dtype, float *x, int64_t n)
{
    (dtype == AM_DTYPE_BF16 ? to_bf16 : to_f16)(x, n);
}

#define AM_SUBTRACT(name, round)                                                                   \
    AM_CLONES static void name(float *restrict x, const float *restrict base, int64_t n)           \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            x[i] = round(x[i] - base[i]);                                                          \
        }                                                                                          \
    }

AM_SUBTRACT(subtract_bf16, of_bf16)
AM_SUBTRACT(subtract_f16, of_f16)

void am_narrow_subtract(am_dtype dtype, float *x, const float *base, int64_t n)
{
    (dtype == AM_DTYPE_BF16 ? subtract_bf16 : subtract_f16)(x, base, n);
}

/* *found is not 0 after a NaN or an infinity. */
AM_INLINE float widen_bf16(uint16_t raw, uint32_t *found)
{
    const uint32_t special = 0x7F800000, bits = (uint32_t)raw << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    *found |= (bits & special) == special;
    return x;
}

AM_CLONES static uint32_t values_of_bf16(float *restrict x, const uint16_t *restrict raw, int64_t n)
{
    uint32_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = widen_bf16(raw[i], &found);
    }
    return found;
}

AM_CLONES static uint32_t differences_of_bf16(float *restrict x, const uint16_t *restrict raw,
                                              const float *restrict base, int64_t n)
{
    uint32_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = of_bf16(widen_bf16(raw[i], &found) - base[i]);
    }
    return found;
}

bool am_narrow_from_bf16(const uint16_t *raw, const float *base, int64_t n, float *x)
{
    return (base != NULL ? differences_of_bf16(x, raw, base, n) : values_of_bf16(x, raw, n)) == 0;
}

/* ---- votes ---- */

#define AM_VOTES(name, round)                                                                      \
    AM_CLONES static void name(double *restrict sum, const double *restrict kept,                  \
                               const float *restrict delta, float weight, int64_t n)               \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const float vote = round(delta[i] * weight);                                           \
            sum[i] = (float)sum[i] + (kept[i] != 0 ? vote : 0);                                    \
        }                                                                                          \
    }

#define AM_RESTORED_VOTES(name, round)                                                             \
    AM_CLONES static void name(double *restrict sum, const double *restrict kept,                  \
                               const float *restrict delta, float factor, float weight, int64_t n) \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const float vote = round(round(delta[i] * factor) * weight);                           \
            sum[i] = (float)sum[i] + (kept[i] != 0 ? vote : 0);                                    \
        }                                                                                          \
    }

AM_VOTES(votes_bf16, of_bf16)
AM_VOTES(votes_f16, of_f16)
AM_RESTORED_VOTES(restored_votes_bf16, of_bf16)
AM_RESTORED_VOTES(restored_votes_f16, of_f16)

void am_narrow_votes(const am_tile *tile, int t, const double *kept, double factor, double weight,
                     double *sum)
{
    const am_dtype dtype = tile->unit->narrow;
    const float *delta = tile->rounded[t];
    float f = (float)factor, w = (float)weight;
    am_narrow(dtype, &f, 1);
    am_narrow(dtype, &w, 1);
    if (f == 1) {
        (dtype == AM_DTYPE_BF16 ? votes_bf16 : votes_f16)(sum, kept, delta, w, tile->n);
    } else {
        (dtype == AM_DTYPE_BF16 ? restored_votes_bf16 : restored_votes_f16)(sum, kept, delta, f, w,
                                                                            tile->n);
    }
}

/* ---- all models at once ---- */

/* Four of them. */
AM_INLINE void widen(const float *x, am_lanes *out)
{
    *out = (am_lanes){(double)x[0], (double)x[1], (double)x[2], (double)x[3]};
}

static double square_one(const float *const *delta, int models, double share, int64_t at)
{
    double mean = 0, sum = 0;
    for (int t = 0; t < models; t++) {
        mean += (double)delta[t][at];
    }
    mean *= share;
    for (int t = 0; t < models; t++) {
        const double off = (double)delta[t][at] - mean;
        sum += off * off;
    }
    return sum;
}

/* Sixteen elements at a time, in variables of their own: GCC keeps arrays of them in memory. */
AM_CLONES static void squares(const float *const *delta, int models, double share, int64_t lo,
                              int64_t n, double *square)
{
    enum { A = 0, B = AM_LANES, C = 2 * AM_LANES, D = 3 * AM_LANES, WIDTH = 4 * AM_LANES };
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        am_lanes mean_a = {0}, mean_b = {0}, mean_c = {0}, mean_d = {0};
        am_lanes sum_a = {0}, sum_b = {0}, sum_c = {0}, sum_d = {0};
        am_lanes a = {0}, b = {0}, c = {0}, d = {0};
        for (int t = 0; t < models; t++) {
            const float *x = delta[t] + lo + i;
            widen(x + A, &a), widen(x + B, &b), widen(x + C, &c), widen(x + D, &d);
            mean_a += a, mean_b += b, mean_c += c, mean_d += d;
        }
        mean_a *= share, mean_b *= share, mean_c *= share, mean_d *= share;
        for (int t = 0; t < models; t++) {
            const float *x = delta[t] + lo + i;
            widen(x + A, &a), widen(x + B, &b), widen(x + C, &c), widen(x + D, &d);
            a -= mean_a, b -= mean_b, c -= mean_c, d -= mean_d;
            sum_a += a * a, sum_b += b * b, sum_c += c * c, sum_d += d * d;
        }
        memcpy(square + i + A, &sum_a, sizeof sum_a);
        memcpy(square + i + B, &sum_b, sizeof sum_b);
        memcpy(square + i + C, &sum_c, sizeof sum_c);
        memcpy(square + i + D, &sum_d, sizeof sum_d);
    }
    for (; i < n; i++) {
        square[i] = square_one(delta, models, share, lo + i);
    }
}

void am_narrow_squares(const am_tile *tile, int64_t lo, int64_t n, double *square)
{
    squares(tile->rounded, tile->models, 1.0 / tile->models, lo, n, square);
}

/* In f32. */
AM_CLONES static void add(double *restrict sum, const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] = (float)sum[i] + x[i];
    }
}

void am_narrow_sum(const am_tile *tile, double *sum)
{
    memset(sum, 0, (size_t)tile->n * sizeof *sum);
    for (int t = 0; t < tile->models; t++) {
        add(sum, tile->rounded[t], tile->n);
    }
}
