/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/dtype.h"

#include <math.h>
#include <string.h>
#include "mpi/clones.h"
#include "mpi/error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checkpoints are little-endian");
_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE 754 floats");

static inline uint32_t bits_of_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline uint64_t bits_of_f64(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float f32_of_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ---- 16 bits to f32 ---- */

static inline float f32_of_bf16(uint16_t h)
{
    uint32_t quiet = (h & 0x7fffu) > 0x7f80u ? 0x00400000u : 0;
    return f32_of_bits((uint32_t)h << 16 | quiet);
}

static inline float f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    uint32_t normal = (magnitude << 13) + (112u << 23); /* exponent bias 15 -> 127 */
    /* A subnormal m * 2^-24 with m < 2^10 is exact in f32, and so are both steps. */
    uint32_t tiny = bits_of_f32((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t special = (magnitude << 13) | 0x7f800000u | (magnitude > 0x7c00u ? 0x00400000u : 0);
    uint32_t u = magnitude < 0x0400u ? tiny : normal;
    return f32_of_bits(sign | (magnitude >= 0x7c00u ? special : u));
}

/* ---- to 16 bits ----
 * A float format of 16 bits has `mant` stored mantissa bits and 15 - mant exponent bits. The
 * significand with its hidden bit is shifted down to the target's precision, further for results
 * below the smallest normal; half an ulp less one plus the lowest kept bit is added first, which is
 * nearest even. The hidden bit and any carry run into the exponent field by the addition. */

static inline uint16_t round_f64(uint64_t u, const int mant, const int bias)
{
    const int drop = 52 - mant;
    const int64_t least = 1023 - bias + 1; /* biased exponent of the target's smallest normal */
    const uint64_t infinity = ((UINT64_C(1) << (15 - mant)) - 1) << mant;
    uint64_t sign = u >> 48 & 0x8000u, magnitude = u & INT64_MAX;
    int64_t exponent = (int64_t)(magnitude >> 52);
    uint64_t significand = (magnitude & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
    int64_t below = least > exponent ? least - exponent : 0;
    int64_t shift = drop + below < 54 ? drop + below : 54; /* 54: everything rounds to zero */
    uint64_t odd = significand >> shift & 1;
    uint64_t rounded = (significand + (UINT64_C(1) << (shift - 1)) - 1 + odd) >> shift;
    uint64_t field = ((uint64_t)(exponent - least + below) << mant) + rounded;
    uint64_t nan =
        infinity | UINT64_C(1) << (mant - 1) | (magnitude >> drop & (infinity ^ 0x7fffu));
    field = field < infinity ? field : infinity;
    field = magnitude > UINT64_C(0x7ff0000000000000) ? nan : field;
    return (uint16_t)(sign | field);
}

static inline uint16_t round_f32(uint32_t u, const int mant, const int bias)
{
    const int drop = 23 - mant;
    const int32_t least = 127 - bias + 1;
    const uint32_t infinity = ((1u << (15 - mant)) - 1) << mant;
    uint32_t sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
    int32_t exponent = (int32_t)(magnitude >> 23);
    /* bf16 has f32's exponents: an f32 subnormal has no hidden bit and the exponent of 1. */
    uint32_t hidden = exponent == 0 ? 0 : 1u << 23;
    uint32_t significand = (magnitude & 0x7fffffu) | hidden;
    int32_t effective = exponent == 0 ? 1 : exponent;
    int32_t below = least > effective ? least - effective : 0;
    int32_t shift = drop + below < 25 ? drop + below : 25;
    uint32_t odd = significand >> shift & 1;
    uint32_t rounded = (significand + (1u << (shift - 1)) - 1 + odd) >> shift;
    uint32_t field = ((uint32_t)(effective - least + below) << mant) + rounded;
    uint32_t nan = infinity | 1u << (mant - 1) | (magnitude >> drop & (infinity ^ 0x7fffu));
    field = field < infinity ? field : infinity;
    field = magnitude > 0x7f800000u ? nan : field;
    return (uint16_t)(sign | field);
}

AM_CLONES static void f16_from_f64(const double *src, int64_t n, uint16_t *dst)
{
    for (int64_t i = 0; i < n; i++) {
        dst[i] = round_f64(bits_of_f64(src[i]), 10, 15);
    }
}

/* Most numbers are zero or end as normal bf16 numbers below the largest: those need fixed shifts
 * only, which every vector unit has. Returns whether any of n is not such a number. */
AM_CLONES static bool bf16_from_usual_f64(const double *restrict src, int64_t n,
                                          uint16_t *restrict dst)
{
    enum { DROP = 45 };
    const int64_t least = (int64_t)(1023 - 126) << 52, most = (int64_t)(1023 + 127) << 52;
    int64_t others = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t u;
        memcpy(&u, &src[i], sizeof u);
        const uint64_t magnitude = u & INT64_MAX, odd = magnitude >> DROP & 1;
        const uint64_t half = (UINT64_C(1) << (DROP - 1)) - 1;
        const uint64_t field = (magnitude + half + odd) >> DROP;
        const uint64_t biased = magnitude != 0 ? field - ((1023 - 127) << 7) : 0;
        others |= (magnitude != 0) & (((int64_t)magnitude < least) | ((int64_t)magnitude >= most));
        dst[i] = (uint16_t)((u >> 48 & 0x8000u) | biased);
    }
    return others != 0;
}

static void bf16_from_f64(const double *src, int64_t n, uint16_t *dst)
{
    enum { STEP = 512 };
    for (int64_t at = 0; at < n; at += STEP) {
        const int64_t m = n - at < STEP ? n - at : STEP;
        if (bf16_from_usual_f64(src + at, m, dst + at)) {
            for (int64_t i = at; i < at + m; i++) {
                dst[i] = round_f64(bits_of_f64(src[i]), 7, 127);
            }
        }
    }
}

AM_CLONES static void f16_from_f32(const float *src, int64_t n, uint16_t *dst)
{
    for (int64_t i = 0; i < n; i++) {
        dst[i] = round_f32(bits_of_f32(src[i]), 10, 15);
    }
}

AM_CLONES static void bf16_from_f32(const float *src, int64_t n, uint16_t *dst)
{
    for (int64_t i = 0; i < n; i++) {
        dst[i] = round_f32(bits_of_f32(src[i]), 7, 127);
    }
}

/* ---- wider ---- */

AM_CLONES static void f64_from_f32(const float *src, int64_t n, double *dst)
{
    for (int64_t i = 0; i < n; i++) {
        dst[i] = (double)src[i];
    }
}

AM_CLONES static void f64_from_f16(const uint16_t *src, int64_t n, double *dst)
{
    for (int64_t i = 0; i < n; i++) {
        dst[i] = (double)f32_of_f16(src[i]);
    }
}

/* The conversion to f64 makes NaNs quiet. */
AM_CLONES static void f64_from_bf16(const uint16_t *restrict src, int64_t n, double *restrict dst)
{
    for (int64_t i = 0; i < n; i++) {
        dst[i] = (double)f32_of_bits((uint32_t)src[i] << 16);
    }
}

/* ---- integers ---- */

/* Nearest even, clamped to [low, high]; high is given as the first double above the range. */
static inline double clamp(double x, double low, double above)
{
    double r = rint(x);
    return x != x ? 0.0 : r < low ? low : r >= above ? above : r;
}

#define AM_INTEGER_LIST(X)                                                                         \
    X(I64, int64_t, -0x1p63, 0x1p63, INT64_MAX)                                                    \
    X(I32, int32_t, -0x1p31, 0x1p31, INT32_MAX)                                                    \
    X(I16, int16_t, -0x1p15, 0x1p15, INT16_MAX)                                                    \
    X(I8, int8_t, -0x1p7, 0x1p7, INT8_MAX)                                                         \
    X(U64, uint64_t, 0.0, 0x1p64, UINT64_MAX)                                                      \
    X(U32, uint32_t, 0.0, 0x1p32, UINT32_MAX)                                                      \
    X(U16, uint16_t, 0.0, 0x1p16, UINT16_MAX)                                                      \
    X(U8, uint8_t, 0.0, 0x1p8, UINT8_MAX)

#define AM_TO_REAL(name, type, low, above, largest)                                                \
    case AM_DTYPE_##name: {                                                                        \
        const type *from_ = src;                                                                   \
        for (int64_t i = 0; i < n; i++) {                                                          \
            dst[i] = (AM_REAL)from_[i];                                                            \
        }                                                                                          \
        return;                                                                                    \
    }

#define AM_FROM_REAL(name, type, low, above, largest)                                              \
    case AM_DTYPE_##name: {                                                                        \
        type *to_ = dst;                                                                           \
        for (int64_t i = 0; i < n; i++) {                                                          \
            double r = clamp((double)src[i], low, above);                                          \
            to_[i] = r >= (above) ? (type)largest : (type)r;                                       \
        }                                                                                          \
        return;                                                                                    \
    }

/* ---- the four entries ---- */

#define AM_REAL double
void am_dtype_to_f64(am_dtype from, const void *src, int64_t n, double *dst)
{
    const uint8_t *boolean = src;
    switch (from) {
    case AM_DTYPE_F64:
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    case AM_DTYPE_F32:
        f64_from_f32(src, n, dst);
        return;
    case AM_DTYPE_F16:
        f64_from_f16(src, n, dst);
        return;
    case AM_DTYPE_BF16:
        f64_from_bf16(src, n, dst);
        return;
        AM_INTEGER_LIST(AM_TO_REAL)
    case AM_DTYPE_BOOL:
        for (int64_t i = 0; i < n; i++) {
            dst[i] = boolean[i] != 0;
        }
        return;
    case AM_DTYPE_COUNT:
        break;
    }
    AM_ASSERT(!"unknown dtype");
}
#undef AM_REAL

#define AM_REAL float
void am_dtype_to_f32(am_dtype from, const void *src, int64_t n, float *dst)
{
    const uint16_t *half = src;
    const double *real = src;
    const uint8_t *boolean = src;
    switch (from) {
    case AM_DTYPE_F64:
        for (int64_t i = 0; i < n; i++) {
            dst[i] = (float)real[i];
        }
        return;
    case AM_DTYPE_F32:
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    case AM_DTYPE_F16:
        for (int64_t i = 0; i < n; i++) {
            dst[i] = f32_of_f16(half[i]);
        }
        return;
    case AM_DTYPE_BF16:
        for (int64_t i = 0; i < n; i++) {
            dst[i] = f32_of_bf16(half[i]);
        }
        return;
        AM_INTEGER_LIST(AM_TO_REAL)
    case AM_DTYPE_BOOL:
        for (int64_t i = 0; i < n; i++) {
            dst[i] = boolean[i] != 0;
        }
        return;
    case AM_DTYPE_COUNT:
        break;
    }
    AM_ASSERT(!"unknown dtype");
}
#undef AM_REAL

void am_dtype_from_f64(am_dtype to, const double *src, int64_t n, void *dst)
{
    float *single = dst;
    uint8_t *boolean = dst;
    switch (to) {
    case AM_DTYPE_F64:
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    case AM_DTYPE_F32:
        for (int64_t i = 0; i < n; i++) {
            single[i] = (float)src[i];
        }
        return;
    case AM_DTYPE_F16:
        f16_from_f64(src, n, dst);
        return;
    case AM_DTYPE_BF16:
        bf16_from_f64(src, n, dst);
        return;
        AM_INTEGER_LIST(AM_FROM_REAL)
    case AM_DTYPE_BOOL:
        for (int64_t i = 0; i < n; i++) {
            boolean[i] = src[i] != 0.0;
        }
        return;
    case AM_DTYPE_COUNT:
        break;
    }
    AM_ASSERT(!"unknown dtype");
}

void am_dtype_from_f32(am_dtype to, const float *src, int64_t n, void *dst)
{
    double *real = dst;
    uint8_t *boolean = dst;
    switch (to) {
    case AM_DTYPE_F64:
        for (int64_t i = 0; i < n; i++) {
            real[i] = (double)src[i];
        }
        return;
    case AM_DTYPE_F32:
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    case AM_DTYPE_F16:
        f16_from_f32(src, n, dst);
        return;
    case AM_DTYPE_BF16:
        bf16_from_f32(src, n, dst);
        return;
        AM_INTEGER_LIST(AM_FROM_REAL)
    case AM_DTYPE_BOOL:
        for (int64_t i = 0; i < n; i++) {
            boolean[i] = src[i] != 0.0f;
        }
        return;
    case AM_DTYPE_COUNT:
        break;
    }
    AM_ASSERT(!"unknown dtype");
}

void am_dtype_swap(am_dtype dtype, void *data, int64_t n)
{
    int64_t bytes = am_dtype_bytes(dtype);
    uint16_t *u16 = data;
    uint32_t *u32 = data;
    uint64_t *u64 = data;
    for (int64_t i = 0; bytes == 2 && i < n; i++) {
        u16[i] = __builtin_bswap16(u16[i]);
    }
    for (int64_t i = 0; bytes == 4 && i < n; i++) {
        u32[i] = __builtin_bswap32(u32[i]);
    }
    for (int64_t i = 0; bytes == 8 && i < n; i++) {
        u64[i] = __builtin_bswap64(u64[i]);
    }
}
