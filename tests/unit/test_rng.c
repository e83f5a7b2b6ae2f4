/* Philox known answers (those published with Random123), streams, permutation, hash.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/rng.h"
#include "tests/am_test.h"

static void known_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } answers[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        uint32_t out[4];
        am_philox(answers[i].counter, answers[i].key, out);
        for (int k = 0; k < 4; k++) {
            AM_CHECK_I64(out[k], answers[i].out[k]);
        }
    }
}

/* Four neighbours of am_rng_u32 are one block. */
static void lanes(void)
{
    am_rng rng = am_rng_make(1, "lanes", 2, 3, "x");
    for (int64_t i = 0; i < 64; i++) {
        const uint32_t counter[4] = {(uint32_t)(i / 4), 0, rng.stream[0], rng.stream[1]};
        uint32_t out[4];
        am_philox(counter, rng.key, out);
        AM_CHECK_I64(am_rng_u32(&rng, i), out[i % 4]);
    }
    const uint32_t far[4] = {5, 1, rng.stream[0], rng.stream[1]};
    uint32_t out[4];
    am_philox(far, rng.key, out);
    AM_CHECK_I64(am_rng_u32(&rng, 4 * ((INT64_C(1) << 32) + 5) + 2), out[2]);
}

/* Filled ranges of any alignment and length, over a boundary of the counter's low word. */
static void fills(void)
{
    const int64_t starts[] = {0, 1, 7, 4 * (INT64_C(1) << 32) - 130};
    const am_rng rng = am_rng_make(1, "fills", 2, 3, "x");
    for (int k = 0; k < 4; k++) {
        for (int64_t n = 0; n < 300; n += 23) {
            uint32_t out[300];
            am_rng_fill_u32(&rng, starts[k], n, out);
            for (int64_t i = 0; i < n; i++) {
                AM_CHECK_I64(out[i], am_rng_u32(&rng, starts[k] + i));
            }
        }
    }
}

/* Chance draws against their definition, from indices all over a word, in one call and in many. */
static void chances(void)
{
    enum { N = 5000 };
    static const double p[] = {0, 1, .5, .3, 1 - 0x1p-16, 0x1p-20, 0x1p-32, .25 + 0x1p-9, -1, 2};
    static uint8_t all[N], part[N];
    const am_rng rng = am_rng_make(7, "chances", 2, 3, "x");
    for (size_t k = 0; k < sizeof p / sizeof p[0]; k++) {
        const int64_t at = k % 2 == 0 ? 0 : (INT64_C(1) << 40) - 2000 - (int64_t)(k % 4);
        const double limit = p[k] * 0x1p32;
        am_rng_chance(&rng, at, N, p[k], all);
        for (int64_t i = at; i < at + N; i++) {
            const uint32_t high = am_rng_u32(&rng, i / 4) >> (i % 4 * 8) & 0xFF;
            const uint32_t low = am_rng_u32(&rng, i + (INT64_C(1) << 62)) & 0xFFFFFF;
            AM_CHECK_I64(all[i - at], (double)(high << 24 | low) < floor(limit));
        }
        for (int64_t lo = 0, n = 1; lo < N; lo += n, n = 2 * n + 1) {
            n = n < N - lo ? n : N - lo;
            am_rng_chance(&rng, at + lo, n, p[k], part + lo);
        }
        AM_CHECK(memcmp(all, part, N) == 0);
    }
}

/* Of 2^17 draws about 512 have the upper 8 bits of the limit; the lower bits decide these. */
static void chances_at_the_limit(void)
{
    enum { N = 1 << 12, TURNS = 1 << 5 };
    static uint8_t low[N], mid[N], high[N];
    const am_rng rng = am_rng_make(am_test_seed(), "limit", 0, 0, "");
    const double p = .4375;
    int64_t met = 0, half = 0;
    for (int64_t k = 0; k < TURNS; k++) {
        am_rng_chance(&rng, k * N, N, p, low);
        am_rng_chance(&rng, k * N, N, p + 0x1p-9, mid);
        am_rng_chance(&rng, k * N, N, p + 0x1p-8, high);
        for (int64_t i = 0; i < N; i++) {
            met += high[i] - low[i];
            half += mid[i] - low[i];
            if (low[i] != high[i]) {
                const uint32_t more = am_rng_u32(&rng, k * N + i + (INT64_C(1) << 62));
                AM_CHECK_I64(mid[i], (more & 0xFFFFFF) < 0x800000);
            }
        }
    }
    AM_CHECK(fabs((double)met - 512) < 5 * sqrt(512));
    AM_CHECK(fabs((double)half - (double)met / 2) < 5 * sqrt((double)met / 4));
}

static bool is_same(am_rng a, am_rng b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/* Every part of the key matters, and parts do not run together. */
static void keys(void)
{
    am_rng base = am_rng_make(1, "init", 2, 3, "w");
    AM_CHECK(is_same(base, am_rng_make(1, "init", 2, 3, "w")));
    AM_CHECK(!is_same(base, am_rng_make(2, "init", 2, 3, "w")));
    AM_CHECK(!is_same(base, am_rng_make(1, "dare", 2, 3, "w")));
    AM_CHECK(!is_same(base, am_rng_make(1, "init", 3, 3, "w")));
    AM_CHECK(!is_same(base, am_rng_make(1, "init", 3, 2, "w")));
    AM_CHECK(!is_same(base, am_rng_make(1, "init", 2, 3, "v")));
    AM_CHECK(!is_same(am_rng_make(0, "ab", 0, 0, "c"), am_rng_make(0, "a", 0, 0, "bc")));
    AM_CHECK(am_hash64("", 0, 0) != am_hash64("", 0, 1));
    AM_CHECK(am_hash64("a", 1, 0) != am_hash64("a\0", 2, 0));
    AM_CHECK(am_hash64("ab", 2, 0) != am_hash64("ba", 2, 0));
}

/* Moments of 2^18 draws within five standard errors. */
static void moments(void)
{
    enum { N = 1 << 18 };
    am_rng rng = am_rng_make(am_test_seed(), "moments", 0, 0, "");
    double sum = 0, square = 0, normal = 0, normal_square = 0, fourth = 0;
    for (int64_t i = 0; i < N; i++) {
        double u = am_rng_uniform(&rng, i), z = am_rng_normal(&rng, i);
        AM_CHECK(u >= 0 && u < 1 && isfinite(z));
        sum += u;
        square += u * u;
        normal += z;
        normal_square += z * z;
        fourth += z * z * z * z;
    }
    double error = 5 / sqrt(N);
    AM_CHECK_NEAR(sum / N, 0.5, error * sqrt(1.0 / 12));
    AM_CHECK_NEAR(square / N, 1.0 / 3, error * sqrt(4.0 / 45));
    AM_CHECK_NEAR(normal / N, 0, error);
    AM_CHECK_NEAR(normal_square / N, 1, error * sqrt(2));
    AM_CHECK_NEAR(fourth / N, 3, error * sqrt(96));
}

static void permutation_of(int64_t n, int64_t round)
{
    am_rng rng = am_rng_make(am_test_seed(), "permute", round, 0, "");
    bool *met = calloc((size_t)n, sizeof *met);
    int64_t fixed = 0;
    if (!AM_CHECK(met != NULL)) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t k = am_rng_permute(&rng, n, i);
        if (AM_CHECK(k >= 0 && k < n)) {
            AM_CHECK(!met[k]);
            met[k] = true;
            fixed += k == i;
        }
    }
    AM_CHECK(n < 100 || fixed < 12); /* Poisson with mean 1 */
    free(met);
}

static void permutations(void)
{
    for (int64_t n = 1; n <= 130; n++) {
        permutation_of(n, n);
    }
    permutation_of(4096, 0);
    permutation_of(65537, 0);
    am_rng rng = am_rng_make(1, "permute", 0, 0, "");
    int64_t n = INT64_C(1) << 62;
    AM_CHECK(am_rng_permute(&rng, n, 5) != am_rng_permute(&rng, n, 6));
}

/* All 24 orders of four items appear about equally often over seeds. */
static void permutation_orders(void)
{
    enum { DRAWS = 24000 };
    int64_t count[256] = {0}, orders = 0;
    for (int64_t s = 0; s < DRAWS; s++) {
        am_rng rng = am_rng_make((uint64_t)s, "orders", 0, 0, "");
        int64_t code = 0;
        for (int64_t i = 0; i < 4; i++) {
            code = 4 * code + am_rng_permute(&rng, 4, i);
        }
        count[code]++;
    }
    double chi_square = 0;
    for (int c = 0; c < 256; c++) {
        orders += count[c] > 0;
        double off = (double)count[c] - DRAWS / 24.0;
        chi_square += count[c] > 0 ? off * off / (DRAWS / 24.0) : 0;
    }
    AM_CHECK_I64(orders, 24);
    AM_CHECK(chi_square < 62); /* 23 degrees of freedom: 62 has probability 2e-5 */
}

static const am_test tests[] = {
    AM_TEST(known_answers),        AM_TEST(lanes), AM_TEST(fills),   AM_TEST(chances),
    AM_TEST(chances_at_the_limit), AM_TEST(keys),  AM_TEST(moments), AM_TEST(permutations),
    AM_TEST(permutation_orders),
};
AM_TEST_MAIN("rng", tests)
