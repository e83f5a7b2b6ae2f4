/* Float conversion against an oracle that knows nothing of bits: the table of all values of the
 * 16-bit format as doubles, searched for the nearest; ties to the even pattern.
 * AM_DTYPE_PATTERNS in the environment: random patterns of each kind (default 10^6).
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/dtype.h"
#include "tests/am_test.h"

enum { BATCH = 4096, PATTERNS = 65536 };

typedef struct format {
    am_dtype dtype;
    int mant, bias;
    int finite; /* patterns below infinity */
    double
        value[PATTERNS / 2]; /* of the positive patterns; at `finite` what comes after the last */
} format;

static format f16 = {.dtype = AM_DTYPE_F16, .mant = 10, .bias = 15};
static format bf16 = {.dtype = AM_DTYPE_BF16, .mant = 7, .bias = 127};

static void fill(format *f)
{
    int scale = 1 << f->mant;
    f->finite = ((1 << (15 - f->mant)) - 1) * scale;
    for (int p = 0; p <= f->finite; p++) {
        int exponent = p / scale, fraction = p % scale;
        f->value[p] = exponent == 0 ? ldexp(fraction, 1 - f->bias - f->mant)
                                    : ldexp(scale + fraction, exponent - f->bias - f->mant);
    }
}

/* Pattern that x rounds to. */
static uint16_t oracle(const format *f, double x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    if (isnan(x)) {
        return (uint16_t)(sign | f->finite); /* compared apart */
    }
    double a = fabs(x);
    if (a >= f->value[f->finite]) {
        return (uint16_t)(sign | f->finite);
    }
    int lo = 0, hi = f->finite; /* value[lo] <= a < value[hi] */
    while (hi - lo > 1) {
        int middle = (lo + hi) / 2;
        if (f->value[middle] <= a) {
            lo = middle;
        } else {
            hi = middle;
        }
    }
    double half_way = f->value[lo] + (f->value[hi] - f->value[lo]) / 2; /* exact */
    int nearest = a < half_way ? lo : a > half_way ? hi : lo % 2 == 0 ? lo : hi;
    return (uint16_t)(sign | nearest);
}

static bool agrees(const format *f, double x, uint16_t got)
{
    if (isnan(x)) {
        uint16_t quiet = (uint16_t)(1 << (f->mant - 1));
        bool is_quiet_nan = (got & 0x7fff) > f->finite && (got & quiet) != 0;
        return is_quiet_nan && ((got & 0x8000) != 0) == (signbit(x) != 0);
    }
    return got == oracle(f, x);
}

static uint64_t state;
static uint64_t next(void) /* splitmix64 */
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Random bits (kind 0), values at and beside a tie of the format (1): there rounding goes wrong
 * first; the same with zeros and normal results only (2): they may take a shorter way. */
static double pick(const format *f, int kind, bool is_f64)
{
    uint64_t r = next();
    double x;
    if (kind == 0) {
        uint32_t low = (uint32_t)r;
        float single;
        memcpy(&single, &low, sizeof single);
        memcpy(&x, &r, sizeof x);
        return is_f64 ? x : (double)single;
    }
    int p = (int)(r % (uint64_t)f->finite);
    if (kind == 2 && (r >> 56 & 31) == 0) {
        return r >> 63 ? -0.0 : 0.0;
    }
    if (kind == 2) {
        p = (1 << f->mant) + p % (f->finite - (2 << f->mant));
    }
    x = f->value[p] + (f->value[p + 1] - f->value[p]) / 2;
    int64_t step = (int64_t)(r >> 32 & 3) - 1; /* -1, 0, 1, 2 units of the input type */
    if (is_f64) {
        for (; step != 0; step += step < 0 ? 1 : -1) {
            x = nextafter(x, step < 0 ? -INFINITY : INFINITY);
        }
    } else {
        float y = (float)x;
        for (; step != 0; step += step < 0 ? 1 : -1) {
            y = nextafterf(y, step < 0 ? -INFINITY : INFINITY);
        }
        x = (double)y;
    }
    return r >> 63 ? -x : x;
}

static int64_t patterns(void)
{
    const char *text = getenv("AM_DTYPE_PATTERNS");
    return text != NULL ? atoll(text) : 1000000;
}

static int64_t count_wrong(const format *f, int kind, bool is_f64, int64_t n)
{
    static double x[BATCH];
    static float y[BATCH];
    static uint16_t got[BATCH];
    int64_t wrong = 0;
    for (int64_t done = 0; done < n; done += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            x[i] = pick(f, kind, is_f64);
            y[i] = (float)x[i];
        }
        if (is_f64) {
            am_dtype_from_f64(f->dtype, x, BATCH, got);
        } else {
            am_dtype_from_f32(f->dtype, y, BATCH, got);
        }
        for (int i = 0; i < BATCH; i++) {
            wrong += !agrees(f, x[i], got[i]);
        }
    }
    return wrong;
}

static void check_narrowing(bool is_f64)
{
    state = am_test_seed();
    for (int kind = 0; kind < 3; kind++) {
        AM_CHECK_I64(count_wrong(&f16, kind, is_f64, patterns() / 2), 0);
        AM_CHECK_I64(count_wrong(&bf16, kind, is_f64, patterns() / 2), 0);
    }
}

static void narrow_f32(void)
{
    check_narrowing(false);
}

static void narrow_f64(void)
{
    check_narrowing(true);
}

/* The edges by name. */
static void narrow_edges(void)
{
    static const struct {
        double x;
        uint16_t f16, bf16;
    } edge[] = {
        {0.0, 0x0000, 0x0000},
        {-0.0, 0x8000, 0x8000},
        {65504.0, 0x7bff, 0x4780},
        {65519.999, 0x7bff, 0x4780},
        {65520.0, 0x7c00, 0x4780},
        {-65520.0, 0xfc00, 0xc780},
        {0x1p-24, 0x0001, 0x3380},
        {0x1p-25, 0x0000, 0x3300}, /* half the smallest f16: tie to even */
        {0x1.0000000000001p-25, 0x0001, 0x3300},
        {0x1.ffcp-15, 0x0400, 0x3880}, /* 1023.5 subnormal units: carry into the normals */
        {0x1p-133, 0x0000, 0x0001},
        {0x1p-134, 0x0000, 0x0000},
        {0x1.8p-133, 0x0000, 0x0002},
        {0x1.ffp127, 0x7c00, 0x7f80},
        {0x1.fefffffffffffp127, 0x7c00, 0x7f7f},
        {0x1p-1074, 0x0000, 0x0000},
        {1.0 + 0x1p-11 + 0x1p-40, 0x3c01, 0x3f80}, /* wrong if rounded through f32 */
        {1.0 + 0x1p-8 + 0x1p-40, 0x3c04, 0x3f81},
        {INFINITY, 0x7c00, 0x7f80},
        {-INFINITY, 0xfc00, 0xff80},
    };
    for (size_t i = 0; i < sizeof edge / sizeof *edge; i++) {
        uint16_t got;
        am_dtype_from_f64(AM_DTYPE_F16, &edge[i].x, 1, &got);
        AM_CHECK_I64(got, edge[i].f16);
        am_dtype_from_f64(AM_DTYPE_BF16, &edge[i].x, 1, &got);
        AM_CHECK_I64(got, edge[i].bf16);
        AM_CHECK(agrees(&f16, edge[i].x, edge[i].f16));
        AM_CHECK(agrees(&bf16, edge[i].x, edge[i].bf16));
    }
}

/* All 65,536 patterns: the right value in f32 and f64, and back to the same pattern. */
static void check_widening(const format *f)
{
    static uint16_t all[PATTERNS], back[PATTERNS];
    static float single[PATTERNS];
    static double real[PATTERNS];
    int64_t wrong = 0;
    for (int p = 0; p < PATTERNS; p++) {
        all[p] = (uint16_t)p;
    }
    am_dtype_to_f32(f->dtype, all, PATTERNS, single);
    am_dtype_to_f64(f->dtype, all, PATTERNS, real);
    for (int p = 0; p < PATTERNS; p++) {
        int magnitude = p & 0x7fff;
        bool is_right = (signbit(real[p]) != 0) == (p >= 0x8000);
        if (magnitude > f->finite) {
            is_right = is_right && isnan(real[p]) && isnan(single[p]);
        } else {
            double x = magnitude == f->finite ? INFINITY : f->value[magnitude];
            is_right = is_right && fabs(real[p]) == x && (double)single[p] == real[p];
        }
        wrong += !is_right;
    }
    AM_CHECK_I64(wrong, 0);
    for (int width = 0; width < 2; width++) {
        if (width == 0) {
            am_dtype_from_f32(f->dtype, single, PATTERNS, back);
        } else {
            am_dtype_from_f64(f->dtype, real, PATTERNS, back);
        }
        wrong = 0;
        for (int p = 0; p < PATTERNS; p++) {
            bool is_nan = (p & 0x7fff) > f->finite;
            wrong += back[p] != (is_nan ? p | 1 << (f->mant - 1) : p);
        }
        AM_CHECK_I64(wrong, 0);
    }
}

static void widen(void)
{
    check_widening(&f16);
    check_widening(&bf16);
}

static void integers(void)
{
    const double x[] = {0.5, 1.5, -2.5, 127.4, 127.5, -128.5, -129.0, 1e300, -1e300, NAN, 3e9};
    enum { N = sizeof x / sizeof *x };
    const int8_t i8[N] = {0, 2, -2, 127, 127, -128, -128, 127, -128, 0, 127};
    const uint8_t u8[N] = {0, 2, 0, 127, 128, 0, 0, 255, 0, 0, 255};
    int8_t got_i8[N];
    uint8_t got_u8[N];
    int64_t got_i64[N];
    am_dtype_from_f64(AM_DTYPE_I8, x, N, got_i8);
    am_dtype_from_f64(AM_DTYPE_U8, x, N, got_u8);
    am_dtype_from_f64(AM_DTYPE_I64, x, N, got_i64);
    for (int i = 0; i < N; i++) {
        AM_CHECK_I64(got_i8[i], i8[i]);
        AM_CHECK_I64(got_u8[i], u8[i]);
    }
    AM_CHECK_I64(got_i64[7], INT64_MAX);
    AM_CHECK_I64(got_i64[8], INT64_MIN);
    double back[3];
    const int64_t wide[3] = {INT64_C(1) << 53, -5, INT64_MIN};
    am_dtype_to_f64(AM_DTYPE_I64, wide, 3, back);
    AM_CHECK_SAME_F64(back[0], 0x1p53);
    AM_CHECK_SAME_F64(back[1], -5.0);
    AM_CHECK_SAME_F64(back[2], -0x1p63);
}

static void swap(void)
{
    uint32_t x[2] = {0x01020304, 0xa0b0c0d0};
    am_dtype_swap(AM_DTYPE_F32, x, 2);
    AM_CHECK_I64(x[0], 0x04030201);
    AM_CHECK_I64(x[1], 0xd0c0b0a0);
}

int main(int argc, char **argv)
{
    static const am_test tests[] = {AM_TEST(widen),        AM_TEST(narrow_f32), AM_TEST(narrow_f64),
                                    AM_TEST(narrow_edges), AM_TEST(integers),   AM_TEST(swap)};
    fill(&f16);
    fill(&bf16);
    return am_test_main_all(argc, argv, "dtype", tests, (int64_t)(sizeof tests / sizeof tests[0]));
}
