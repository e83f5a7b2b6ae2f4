/* Assignments against all permutations, and large ones by their proof: prices that no pair exceeds
 * and that every matched pair meets. SPDX-License-Identifier: BSD-3-Clause */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include "mpi/error.h"
#include "mpi/rng.h"
#include "solver/linalg/assignment.h"
#include "tests/am_test.h"

enum { SMALL = 8, LARGE = 300, KINDS = 7 };

/* Entry `at` of a matrix of some kind: normal, whole, few values (ties), negative, 1e-150 to 1e150,
 * near the largest number, all equal. */
static double entry(const am_rng *rng, int kind, int64_t at)
{
    const double z = am_rng_normal(rng, at), x = am_rng_uniform(rng, at);
    switch (kind) {
    case 1:
        return floor(2e6 * x) - 1e6;
    case 2:
        return floor(3 * x);
    case 3:
        return -1 - x;
    case 4:
        return z * pow(10, floor(300 * am_rng_uniform(rng, at + (1 << 20))) - 150);
    case 5:
        return z < 0 ? -DBL_MAX * x : DBL_MAX * x;
    case 6:
        return 2.5;
    default:
        return z;
    }
}

/* Largest sum over all ways to give rows r.. their columns. */
static double best_of_all(const double *gain, int n, int r, unsigned taken)
{
    double best = r == n ? 0 : -INFINITY;
    for (int j = 0; r < n && j < n; j++) {
        if (!(taken >> j & 1)) {
            const double rest = best_of_all(gain, n, r + 1, taken | 1U << j);
            best = fmax(best, gain[r * n + j] + rest);
        }
    }
    return best;
}

static double check_match(const double *gain, int64_t n, int64_t ld, const int64_t *match)
{
    double sum = 0;
    bool is_taken[LARGE] = {false};
    for (int64_t i = 0; i < n; i++) {
        if (AM_CHECK(match[i] >= 0 && match[i] < n && !is_taken[match[i]])) {
            is_taken[match[i]] = true;
            sum += gain[i * ld + match[i]];
        }
    }
    return sum;
}

static void small_ones(void)
{
    double gain[SMALL * SMALL];
    int64_t match[SMALL];
    for (int kind = 0; kind < KINDS; kind++) {
        for (int round = 0; round < 60; round++) {
            const int n = 1 + round % (round < 50 ? 6 : SMALL);
            const am_rng rng = am_rng_make(1, "assignment", round, kind, "");
            double most = 0;
            for (int i = 0; i < n * n; i++) { /* sums of a few stay finite */
                gain[i] = entry(&rng, kind, i) / (kind == 5 ? SMALL : 1);
                most = fmax(most, fabs(gain[i]));
            }
            AM_CHECK_OK(am_assignment(n, gain, n, match, NULL, NULL));
            const double sum = check_match(gain, n, n, match), best = best_of_all(gain, n, 0, 0);
            const bool is_whole = kind == 1 || kind == 2 || kind == 6;
            AM_CHECK_NEAR(sum, best, is_whole ? 0 : 4 * n * DBL_EPSILON * most);
        }
    }
}

static void large_ones(void)
{
    static double gain[LARGE * (LARGE + 3)], u[LARGE], v[LARGE];
    static int64_t match[LARGE], again[LARGE];
    for (int kind = 0; kind < KINDS; kind++) {
        const int64_t n = LARGE - 7 * kind, ld = n + (kind % 2) * 3;
        const am_rng rng = am_rng_make(2, "assignment", 0, kind, "");
        const double scale = kind == 5 ? 0x1p-24 : 1;
        double most = 0;
        for (int64_t i = 0; i < n * ld; i++) {
            gain[i] =
                i % ld < n ? entry(&rng, kind, i) : NAN; /* what lies between rows is not read */
            most = i % ld < n ? fmax(most, fabs(gain[i]) * scale) : most;
        }
        AM_CHECK_OK(am_assignment(n, gain, ld, match, u, v));
        AM_CHECK_OK(am_assignment(n, gain, ld, again, NULL, NULL));
        const double slack = kind == 1 || kind == 2 || kind == 6 ? 0 : 100 * DBL_EPSILON * most;
        check_match(gain, n, ld, match);
        for (int64_t i = 0; i < n; i++) {
            AM_CHECK_I64(match[i], again[i]);
            AM_CHECK_NEAR(u[i] + v[match[i]], scale * gain[i * ld + match[i]], slack);
            double least = INFINITY;
            for (int64_t j = 0; j < n; j++) {
                least = fmin(least, u[i] + v[j] - scale * gain[i * ld + j]);
            }
            AM_CHECK(least >= -slack);
        }
    }
}

/* Where all are alike, or the diagonal is as good as any, the order stays. */
static void the_order_stays(void)
{
    double gain[SMALL * SMALL] = {0};
    int64_t match[SMALL];
    for (int round = 0; round < 2; round++) {
        AM_CHECK_OK(am_assignment(SMALL, gain, SMALL, match, NULL, NULL));
        for (int64_t i = 0; i < SMALL; i++) {
            AM_CHECK_I64(match[i], i);
            gain[i * SMALL + i] = 1;
            gain[i * SMALL + (i + 1) % SMALL] = 1;
        }
    }
    AM_CHECK_OK(am_assignment(0, gain, 0, match, NULL, NULL));
}

static void not_finite(void)
{
    double gain[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    int64_t match[3];
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++) {
        gain[5] = bad[k];
        AM_CHECK_CODE(am_assignment(3, gain, 3, match, NULL, NULL), AM_E_NUMERIC);
        AM_CHECK_CONTAINS(am_error_message(), "entry [1,2] of 3 rows");
        am_error_clear();
    }
}

static const am_test tests[] = {AM_TEST(small_ones), AM_TEST(large_ones), AM_TEST(the_order_stays),
                                AM_TEST(not_finite)};
AM_TEST_MAIN("assignment", tests)
