/* Exact sums against a different algorithm (Shewchuk's expansions, as Python's math.fsum), and the
 * vector tree against a naive one. Every rank knows the whole input, so each checks everything.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "tests/am_test.h"

/* ---- oracle: a sum as non-overlapping doubles of rising size, rounded once ---- */

enum { PARTIALS = 2200 };

static int grow(double *partial, int n, double x)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        double big = fabs(x) < fabs(partial[i]) ? partial[i] : x;
        double small = fabs(x) < fabs(partial[i]) ? x : partial[i];
        double high = big + small, low = small - (high - big);
        if (low != 0) {
            partial[kept++] = low;
        }
        x = high;
    }
    partial[kept++] = x;
    return kept;
}

static double oracle_sum(const double *x, int64_t n)
{
    static double partial[PARTIALS];
    int count = 0;
    for (int64_t i = 0; i < n; i++) {
        count = grow(partial, count, x[i]);
    }
    double high = 0, low = 0;
    while (count > 0) {
        double top = high;
        high = top + partial[--count];
        low = partial[count] - (high - top);
        if (low != 0) {
            break;
        }
    }
    if (count > 0 && ((low < 0 && partial[count - 1] < 0) || (low > 0 && partial[count - 1] > 0))) {
        double twice = 2 * low, up = high + twice; /* half-way case decided by what lies below */
        if (twice == up - high) {
            high = up;
        }
    }
    return high;
}

/* The sum of x[0..n) made by all ranks, each adding the part that `owner` gives it. */
static double exact_sum_all(const double *x, int64_t n, uint64_t shuffle)
{
    am_exact sum;
    am_exact_zero(&sum);
    am_rng order = am_rng_make(shuffle, "order", 0, 0, "");
    for (int64_t i = 0; i < n; i++) {
        int64_t k = shuffle == 0 ? i : am_rng_permute(&order, n, i);
        if (am_part_owner(n, am_world_size(), i) == am_world_rank()) {
            am_exact_add(&sum, x[k]);
        }
    }
    AM_CHECK_OK(am_exact_sum_all(am_world(), &sum, 1));
    return am_exact_round(&sum);
}

static void check_sum_all(const double *x, int64_t n)
{
    double expected = oracle_sum(x, n);
    for (uint64_t shuffle = 0; shuffle < 3; shuffle++) {
        AM_CHECK_SAME_F64(exact_sum_all(x, n, shuffle), expected);
    }
}

enum { MANY = 5000 };
static double input[MANY];

/* Random signs and mantissas, exponents in [low, high]. */
static void fill(int64_t n, int low, int high, int64_t round)
{
    am_rng rng = am_rng_make(am_test_seed(), "reduce", round, 0, "");
    for (int64_t i = 0; i < n; i++) {
        double mantissa = 2 * am_rng_uniform(&rng, 2 * i) - 1;
        int exponent = low + (int)(am_rng_u32(&rng, 8 * i + 4) % (uint32_t)(high - low + 1));
        input[i] = ldexp(mantissa, exponent);
    }
}

static void exact_random_all(void)
{
    static const int ranges[][2] = {{-1, 1},        {-60, 60},    {-300, 300},
                                    {-1090, -1000}, {-1074, 960}, {900, 1000}};
    for (int r = 0; r < 6; r++) {
        for (int64_t n = 1; n <= MANY; n = 5 * n + 3) {
            fill(n, ranges[r][0], ranges[r][1], 100 * r + n);
            check_sum_all(input, n);
        }
    }
}

static void exact_cancellation_all(void)
{
    fill(MANY / 2, -500, 500, 1);
    for (int64_t i = 0; i < MANY / 2; i++) {
        input[MANY / 2 + i] = -input[i];
    }
    check_sum_all(input, MANY);
    AM_CHECK_SAME_F64(exact_sum_all(input, MANY, 9), 0.0);
    input[17] += 0x1p-30;
    check_sum_all(input, MANY);
}

static void exact_edges_all(void)
{
    const double cases[][4] = {
        {0x1p53, 1, 0, 0},                          /* tie to even, down */
        {0x1p53 + 2, 1, 0, 0},                      /* tie to even, up */
        {0x1p53, 1, 0x1p-1074, 0},                  /* just above a tie */
        {0x1p53, 1, -0x1p-1074, 0},                 /* just below */
        {-0x1p53, -1, -0x1p-1074, 0},               /* the same below zero */
        {0x1p-1074, 0x1p-1074, 0, 0},               /* subnormals are exact */
        {DBL_MIN, -0x1p-1074, 0, 0},                /* from normal to subnormal */
        {0x1.fffffffffffffp-1023, 0x1p-1074, 0, 0}, /* and back */
        {0x1p1023, -0x1p1023, 0x1p-1074, 0},
        {DBL_MAX, -DBL_MAX, -0x1p-1074, 0},
        {0x1.fffffffffffffp0, 0x1p-53, 0, 0}, /* rounding carries into the exponent */
        {1e308, -1e308, 1, 1e-308},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_sum_all(cases[i], 4);
    }
    const double beyond[] = {DBL_MAX, DBL_MAX, -DBL_MAX}; /* no overflow on the way */
    AM_CHECK_SAME_F64(exact_sum_all(beyond, 3, 0), DBL_MAX);
    AM_CHECK_SAME_F64(exact_sum_all(beyond, 2, 0), INFINITY);
    const double half_ulp[] = {DBL_MAX, 0x1p969}, half_way[] = {DBL_MAX, 0x1p970};
    AM_CHECK_SAME_F64(exact_sum_all(half_ulp, 2, 0), DBL_MAX);
    AM_CHECK_SAME_F64(exact_sum_all(half_way, 2, 0), INFINITY);
    const double nan[] = {1, NAN, INFINITY}, inf[] = {1, INFINITY, -5, INFINITY};
    const double negative[] = {-INFINITY, DBL_MAX}, both[] = {INFINITY, 1, -INFINITY};
    AM_CHECK_SAME_F64(exact_sum_all(nan, 3, 0), NAN);
    AM_CHECK_SAME_F64(exact_sum_all(inf, 4, 0), INFINITY);
    AM_CHECK_SAME_F64(exact_sum_all(negative, 2, 0), -INFINITY);
    AM_CHECK_SAME_F64(exact_sum_all(both, 3, 0), NAN);
    AM_CHECK_SAME_F64(exact_sum_all(NULL, 0, 0), 0.0);
}

/* 2^k copies by merging a number with itself: digits must be normalised on the way. */
static void exact_merge(void)
{
    const double x[] = {DBL_MAX / 4, -0x1.23456789abcdep-700, 0x1p-1074};
    for (int i = 0; i < 3; i++) {
        am_exact sum;
        am_exact_zero(&sum);
        am_exact_add(&sum, x[i]);
        int doublings = i == 0 ? 2 : 60;
        for (int k = 0; k < doublings; k++) {
            am_exact copy = sum;
            am_exact_merge(&sum, &copy);
        }
        AM_CHECK_SAME_F64(am_exact_round(&sum), i == 0 ? DBL_MAX : ldexp(x[i], 60));
    }
}

static void dot_chunks(void)
{
    enum { N = 10007 };
    static double x[N], y[N];
    am_rng rng = am_rng_make(am_test_seed(), "dot", 0, 0, "");
    for (int64_t i = 0; i < N; i++) {
        x[i] = am_rng_normal(&rng, i);
        y[i] = am_rng_normal(&rng, N + i);
    }
    for (int64_t n = 0; n <= N; n = n < 70 ? n + 1 : n * 3 - 11) {
        am_exact sum;
        am_exact_zero(&sum);
        am_dot_chunk(x, y, n, &sum);
        double naive = 0;
        am_exact tiles;
        am_exact_zero(&tiles);
        for (int64_t at = 0; at < n; at += 4096) { /* the contract of the header, literally */
            double lane[32] = {0};
            for (int64_t i = at; i < n && i < at + 4096; i++) {
                lane[i % 32] += x[i] * y[i];
                naive += x[i] * y[i];
            }
            for (int half = 16; half > 0; half /= 2) {
                for (int l = 0; l < half; l++) {
                    lane[l] += lane[l + half];
                }
            }
            am_exact_add(&tiles, lane[0]);
        }
        AM_CHECK_SAME_F64(am_exact_round(&sum), am_exact_round(&tiles));
        AM_CHECK_NEAR(am_exact_round(&sum), naive, 1e-10);
    }
}

static void integers_and_maxima_all(void)
{
    int rank = am_world_rank(), size = am_world_size();
    int64_t sum[3] = {1, rank, INT64_C(1) << 40}, most[2] = {rank, -rank};
    AM_CHECK_OK(am_sum_i64_all(am_world(), sum, 3));
    AM_CHECK_I64(sum[0], size);
    AM_CHECK_I64(sum[1], size * (size - 1) / 2);
    AM_CHECK_I64(sum[2], (INT64_C(1) << 40) * size);
    AM_CHECK_OK(am_max_i64_all(am_world(), most, 2));
    AM_CHECK_I64(most[0], size - 1);
    AM_CHECK_I64(most[1], 0);
    double reals[5] = {rank, -1.0 - rank, rank == size - 1 ? NAN : 1, -INFINITY,
                       rank == 0 ? -0x1p-1074 : -1};
    AM_CHECK_OK(am_max_f64_all(am_world(), reals, 5));
    AM_CHECK_SAME_F64(reals[0], size - 1);
    AM_CHECK_SAME_F64(reals[1], -1.0);
    AM_CHECK_SAME_F64(reals[2], NAN);
    AM_CHECK_SAME_F64(reals[3], -INFINITY);
    AM_CHECK_SAME_F64(reals[4], -0x1p-1074);
}

static const am_test tests[] = {
    AM_TEST(exact_random_all), AM_TEST(exact_cancellation_all),
    AM_TEST(exact_edges_all),  AM_TEST(exact_merge),
    AM_TEST(dot_chunks),       AM_TEST(integers_and_maxima_all),
};
AM_TEST_MAIN("reduce", tests)
