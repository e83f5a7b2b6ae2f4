/* Decisions in bf16 and f16. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/narrow.h"

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

/* Without the low `bits` of the significand; NaN and infinities stay. */
AM_INLINE float drop_bits(float x, int bits)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    const uint32_t half = ((uint32_t)1 << (bits - 1)) - 1 + ((u >> bits) & 1);
    const uint32_t rounded = (u + half) >> bits << bits;
    u = (u & 0x7F800000) != 0x7F800000 ? rounded : u;
    memcpy(&x, &u, sizeof x);
    return x;
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

AM_CLONES static void to_bf16(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = of_bf16(x[i]);
    }
}

AM_CLONES static void to_f16(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = of_f16(x[i]);
    }
}

void am_narrow(am_dtype dtype, float *x, int64_t n)
{
    if (dtype == AM_DTYPE_BF16) {
        to_bf16(x, n);
    } else {
        to_f16(x, n);
    }
}

/* Everything in registers: the loops are as fast as the loads. */
AM_CLONES static void difference_bf16(float *restrict out, const double *restrict x,
                                      const double *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = of_bf16(of_bf16((float)x[i]) - of_bf16((float)base[i]));
    }
}

AM_CLONES static void difference_f16(float *restrict out, const double *restrict x,
                                     const double *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = of_f16(of_f16((float)x[i]) - of_f16((float)base[i]));
    }
}

void am_narrow_difference(am_dtype dtype, float *out, const double *x, const double *base,
                          int64_t n)
{
    if (dtype == AM_DTYPE_BF16) {
        difference_bf16(out, x, base, n);
    } else {
        difference_f16(out, x, base, n);
    }
}

enum { FACTORS = 2 };

/* sum += the difference times the factors, each product rounded, where kept is not 0. */
#define AM_VOTES(name, round)                                                                      \
    AM_CLONES static void name(double *restrict sum, const double *restrict kept,                  \
                               const double *restrict x, const double *restrict base,              \
                               const float *factor, int64_t n)                                     \
    {                                                                                              \
        const float first = factor[0], second = factor[1];                                         \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const float delta = round(round((float)x[i]) - round((float)base[i]));                 \
            const float vote = round(round(delta * first) * second);                               \
            sum[i] = (float)sum[i] + (kept[i] != 0 ? vote : 0);                                    \
        }                                                                                          \
    }

AM_VOTES(votes_bf16, of_bf16)
AM_VOTES(votes_f16, of_f16)

void am_narrow_votes(am_dtype dtype, const am_tile *tile, int t, const double *kept, double factor,
                     double weight, double *sum)
{
    float rounded[FACTORS] = {(float)factor, (float)weight}; /* 1 changes nothing */
    am_narrow(dtype, rounded, FACTORS);
    if (dtype == AM_DTYPE_BF16) {
        votes_bf16(sum, kept, tile->x[t], tile->base, rounded, tile->n);
    } else {
        votes_f16(sum, kept, tile->x[t], tile->base, rounded, tile->n);
    }
}

/* ---- all models at once, sums in registers ---- */

enum { GROUP = 16 };

/* A group of m <= GROUP elements of every task vector, rounded: delta [models]. */
AM_INLINE void load_group(am_dtype dtype, const am_tile *tile, int64_t lo, int64_t m,
                          float (*restrict delta)[GROUP])
{
    float base[GROUP] = {0};
    for (int64_t k = 0; k < m; k++) {
        const float b = (float)tile->base[lo + k];
        base[k] = dtype == AM_DTYPE_BF16 ? of_bf16(b) : of_f16(b);
    }
    for (int t = 0; t < tile->models; t++) {
        const double *restrict x = tile->x[t] + lo;
        for (int64_t k = 0; k < m; k++) {
            const float v = (float)x[k];
            delta[t][k] = dtype == AM_DTYPE_BF16 ? of_bf16(of_bf16(v) - base[k])
                                                 : of_f16(of_f16(v) - base[k]);
        }
    }
}

AM_INLINE void group_squares(am_dtype dtype, const am_tile *tile, int64_t lo, int64_t m,
                             double *square)
{
    float delta[AM_MAX_MODELS][GROUP];
    double mean[GROUP] = {0}, sum[GROUP] = {0};
    load_group(dtype, tile, lo, m, delta);
    for (int t = 0; t < tile->models; t++) {
        for (int64_t k = 0; k < m; k++) {
            mean[k] += (double)delta[t][k];
        }
    }
    for (int64_t k = 0; k < m; k++) {
        mean[k] /= tile->models;
    }
    for (int t = 0; t < tile->models; t++) {
        for (int64_t k = 0; k < m; k++) {
            const double off = (double)delta[t][k] - mean[k];
            sum[k] += off * off;
        }
    }
    memcpy(square, sum, (size_t)m * sizeof *square);
}

AM_INLINE void group_votes(am_dtype dtype, const am_tile *tile, int64_t lo, int64_t m, double *out)
{
    float delta[AM_MAX_MODELS][GROUP], sum[GROUP] = {0};
    load_group(dtype, tile, lo, m, delta);
    for (int t = 0; t < tile->models; t++) {
        for (int64_t k = 0; k < m; k++) {
            sum[k] += delta[t][k];
        }
    }
    for (int64_t k = 0; k < m; k++) {
        out[k] = (double)sum[k];
    }
}

#define AM_GROUPS(name, group, dtype)                                                              \
    AM_CLONES static void name(const am_tile *tile, int64_t lo, int64_t n, double *out)            \
    {                                                                                              \
        int64_t i = 0;                                                                             \
        for (; i + GROUP <= n; i += GROUP) {                                                       \
            group(dtype, tile, lo + i, GROUP, out + i);                                            \
        }                                                                                          \
        if (i < n) {                                                                               \
            group(dtype, tile, lo + i, n - i, out + i);                                            \
        }                                                                                          \
    }

AM_GROUPS(squares_bf16, group_squares, AM_DTYPE_BF16)
AM_GROUPS(squares_f16, group_squares, AM_DTYPE_F16)
AM_GROUPS(sums_bf16, group_votes, AM_DTYPE_BF16)
AM_GROUPS(sums_f16, group_votes, AM_DTYPE_F16)

void am_narrow_squares(am_dtype dtype, const am_tile *tile, int64_t lo, int64_t n, double *square)
{
    (dtype == AM_DTYPE_BF16 ? squares_bf16 : squares_f16)(tile, lo, n, square);
}

void am_narrow_sum(am_dtype dtype, const am_tile *tile, double *sum)
{
    (dtype == AM_DTYPE_BF16 ? sums_bf16 : sums_f16)(tile, 0, tile->n, sum);
}
