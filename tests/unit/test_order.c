/* The take-th largest key by sample, sweep and digits, beside a sort: keys that mislead a sample,
 * that are all equal, few, many; spread over the ranks. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "solver/merge/order.h"
#include "tests/am_test.h"

enum { N = 50000, CUTS = 8, PICKS = 2 * CUTS };

static float keys[N], sorted[N];

typedef enum kind {
    NORMAL,
    ONE_VALUE,
    TWO_VALUES,
    ZEROS,
    DENORMALS,
    RISING,
    FALLING,
    STEPS,
    REVERSED_STEPS,
    LATE,
    EXTREMES,
    KINDS
} kind;

static float key_of(kind k, int64_t i, const am_rng *rng)
{
    const float x = fabsf((float)am_rng_normal(rng, i));
    const uint32_t largest = 0x7F7FFFFF;
    uint32_t bits;
    float reversed;
    switch (k) {
    case ONE_VALUE:
        return 0.25F;
    case TWO_VALUES:
        return i % 3 == 0 ? 1.5F : 1.25F;
    case ZEROS:
        return i % 100 == 7 ? x : 0;
    case DENORMALS:
        return x * 1e-41F;
    case RISING:
        return (float)i;
    case FALLING:
        return (float)(N - i);
    case STEPS:
        return roundf(x * 64) / 64;
    case REVERSED_STEPS:
        reversed = roundf(x * 64) / 64;
        memcpy(&bits, &reversed, sizeof bits);
        bits = largest - bits;
        memcpy(&reversed, &bits, sizeof reversed);
        return reversed;
    case LATE: /* the first part is like nothing that follows */
        return i < N / 16 ? 1e-3F * x : 1e3F + x;
    case EXTREMES:
        return i % 5 == 0 ? (float)INFINITY : i % 5 == 1 ? 3.4e38F : i % 5 == 2 ? 1e-45F : x;
    default:
        return x;
    }
}

static int descending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Which keys are the sample: here and there, the first ones, none, or one. */
typedef enum sampling { SPREAD, FIRST, NOTHING, SINGLE, SAMPLINGS } sampling;

static void count_sample(am_order *o, sampling s, int64_t lo, int64_t hi)
{
    const int64_t step = s == SPREAD ? 16 : 1;
    const int64_t end = s == SPREAD ? hi : s == FIRST ? N / 16 : s == SINGLE ? 1 : 0;
    for (int64_t i = lo; i < hi && i < end; i += step) {
        const float *stream[] = {&keys[i]};
        am_order_count(o, 0, o->n, stream, 1);
    }
}

static void count_all(am_order *o, int64_t lo, int64_t hi)
{
    for (int64_t at = lo; at < hi; at += 1000) {
        const float *stream[] = {&keys[at]};
        am_order_count(o, 0, o->n, stream, hi - at < 1000 ? hi - at : 1000);
    }
}

static void check_pick(const am_pick *p, int64_t lo)
{
    const int64_t take = p->cut.take;
    int64_t equal = 0, above = 0, before = 0;
    const float threshold = take > 0 ? sorted[take - 1] : (float)INFINITY;
    AM_CHECK(p->cut.threshold == threshold);
    for (int64_t i = 0; i < N && take > 0; i++) {
        above += keys[i] > threshold;
        equal += keys[i] == threshold;
        before += keys[i] == threshold && i < lo;
    }
    AM_CHECK_I64(p->ties, equal);
    AM_CHECK_I64(p->ties_here, before);
    AM_CHECK_I64(p->cut.ties, take == 0 ? 0 : p->cut.all_ties ? equal : take - above);
}

/* Returns how many visits of all keys it took. */
static int find_all(am_order *o, sampling s, int64_t lo, int64_t hi)
{
    int visits = 0;
    am_order_start(o, s != SAMPLINGS);
    while (o->phase != AM_ORDER_FOUND && visits <= AM_ORDER_MAX_VISITS) {
        const bool samples = o->phase == AM_ORDER_SAMPLE;
        am_order_visit(o);
        if (samples) {
            count_sample(o, s, lo, hi);
        } else {
            count_all(o, lo, hi);
        }
        visits += !samples;
        AM_CHECK_OK(am_order_reduce_all(am_world(), o));
    }
    AM_CHECK(o->phase == AM_ORDER_FOUND);
    return visits;
}

static void cuts_are_those_of_a_sort_all(void)
{
    static const int64_t takes[CUTS] = {0, 1, 2, N / 100, N / 5, N / 2, N - 1, N};
    const am_rng rng = am_rng_make(am_test_seed(), "order", 0, 0, "");
    const int64_t rank = am_world_rank(), size = am_world_size();
    const int64_t lo = N * rank / size, hi = N * (rank + 1) / size;
    for (kind k = 0; k < KINDS; k++) {
        for (int64_t i = 0; i < N; i++) {
            sorted[i] = keys[i] = key_of(k, i, &rng);
        }
        qsort(sorted, N, sizeof *sorted, descending);
        for (int way = 0; way <= SAMPLINGS; way++) { /* the last: by digits alone */
            am_order o = {0};
            AM_CHECK_OK(am_order_reserve(&o, PICKS, way % 2 == 0 ? 14 : 16, size == 1));
            for (int i = 0; i < PICKS; i++) {
                o.pick[i] =
                    (am_pick){.cut = {.take = takes[i / 2], .all_ties = i % 2 == 1}, .of = N};
            }
            const int visits = find_all(&o, way, lo, hi);
            for (int i = 0; i < PICKS && (way == SPREAD || i % 3 == way % 3); i++) {
                check_pick(&o.pick[i], lo);
            }
            /* a good sample finds all, and a bad one does not */
            AM_CHECK(way != SPREAD || visits == 1 || k == LATE || k == DENORMALS);
            AM_CHECK(way != FIRST || visits > 1 || k != RISING);
            am_order_free(&o);
        }
    }
}

static const am_test tests[] = {AM_TEST(cuts_are_those_of_a_sort_all)};
AM_TEST_MAIN("order", tests)
