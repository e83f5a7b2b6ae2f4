/* Decisions in bf16 and f16. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/merge/narrow.h"

#include <string.h>
#include "mpi/clones.h"

am_dtype am_narrow_of(am_dtype work, am_semantics semantics, am_scope scope)
{
    const bool is_narrow = work == AM_DTYPE_BF16 || work == AM_DTYPE_F16;
    return is_narrow && semantics == AM_SEMANTICS_MERGEKIT && scope == AM_SCOPE_TENSOR
               ? work
               : AM_DTYPE_F64;
}

/* Without the low `bits` of the significand; NaN and infinities stay. */
static inline float drop_bits(float x, int bits)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    const uint32_t half = ((uint32_t)1 << (bits - 1)) - 1 + ((u >> bits) & 1);
    const uint32_t rounded = (u + half) >> bits << bits;
    u = (u & 0x7F800000) != 0x7F800000 ? rounded : u;
    memcpy(&x, &u, sizeof x);
    return x;
}

AM_CLONES static void to_bf16(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = drop_bits(x[i], 16);
    }
}

/* Subnormal numbers of f16 are multiples of 2^-24, as f32 at 0.75 are. */
AM_CLONES static void to_f16(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const bool is_small = x[i] < 0x1p-14F && x[i] > -0x1p-14F;
        const float shifted = x[i] + 0.75F, dropped = drop_bits(x[i], 13);
        x[i] = is_small ? shifted - 0.75F : dropped;
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

AM_CLONES static void to_f32(float *restrict out, const double *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)x[i];
    }
}

AM_CLONES static void subtract(float *restrict out, const float *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] -= base[i];
    }
}

void am_narrow_difference(am_dtype dtype, float *out, const double *x, const double *base,
                          int64_t n)
{
    enum { PART = 512 };
    for (int64_t lo = 0; lo < n; lo += PART) {
        const int64_t some = n - lo < PART ? n - lo : PART;
        float from[PART];
        to_f32(out + lo, x + lo, some);
        to_f32(from, base + lo, some);
        am_narrow(dtype, out + lo, some);
        am_narrow(dtype, from, some);
        subtract(out + lo, from, some);
        am_narrow(dtype, out + lo, some);
    }
}

AM_CLONES static void multiply(float *x, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] *= factor;
    }
}

AM_CLONES static void add_where(double *restrict sum, const float *restrict vote,
                                const double *restrict kept, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float more = kept[i] != 0 ? vote[i] : 0;
        sum[i] = (float)sum[i] + more;
    }
}

void am_narrow_votes(am_dtype dtype, const am_tile *tile, int t, const double *kept, double factor,
                     double weight, float *work, double *sum)
{
    float rounded[] = {(float)factor, (float)weight};
    am_narrow(dtype, rounded, 2);
    am_narrow_difference(dtype, work, tile->x[t], tile->base, tile->n);
    for (int k = factor != 1 ? 0 : 1; k < 2; k++) {
        multiply(work, rounded[k], tile->n);
        am_narrow(dtype, work, tile->n);
    }
    add_where(sum, work, kept, tile->n);
}
