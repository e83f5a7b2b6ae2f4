/* Shares, slices and balance over generated tables and all part counts 1..17.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include "mpi/partition.h"
#include "mpi/rng.h"
#include "tests/am_test.h"

enum { PARTS = 17 };

static void ranges(void)
{
    for (int64_t n = 0; n < 70; n++) {
        for (int64_t parts = 1; parts <= PARTS; parts++) {
            int64_t end = 0;
            for (int64_t p = 0; p < parts; p++) {
                int64_t lo = 0, hi = 0;
                am_part_range(n, parts, p, &lo, &hi);
                AM_CHECK_I64(lo, end);
                AM_CHECK(hi - lo == n / parts || hi - lo == n / parts + 1);
                for (int64_t i = lo; i < hi; i++) {
                    AM_CHECK_I64(am_part_owner(n, parts, i), p);
                }
                end = hi;
            }
            AM_CHECK_I64(end, n);
        }
    }
    int64_t lo = 0, hi = 0;
    am_part_range(INT64_MAX, 1 << 20, (1 << 20) - 1, &lo, &hi);
    AM_CHECK_I64(hi, INT64_MAX);
    AM_CHECK_I64(am_part_owner(INT64_MAX, 1 << 20, lo), (1 << 20) - 1);
    AM_CHECK_I64(am_part_owner(INT64_MAX, 1 << 20, lo - 1), (1 << 20) - 2);
}

static void units(void)
{
    AM_CHECK_I64(am_part_units(0, AM_CHUNK), 0);
    AM_CHECK_I64(am_part_units(1, AM_CHUNK), 1);
    AM_CHECK_I64(am_part_units(AM_CHUNK, AM_CHUNK), 1);
    AM_CHECK_I64(am_part_units(AM_CHUNK + 1, AM_CHUNK), 2);
    AM_CHECK_I64(am_part_units(INT64_MAX, AM_BLOCK), (INT64_MAX >> 20) + 1);
}

/* A table of `n` tensors with mixed types and sizes, some empty, some exact multiples. */
static void make_table(am_tensor_table *table, int64_t n, int64_t unit, int64_t round)
{
    static const am_dtype types[] = {AM_DTYPE_F32, AM_DTYPE_BF16, AM_DTYPE_F64, AM_DTYPE_BOOL};
    am_rng rng = am_rng_make(am_test_seed(), "partition", round, n, "");
    for (int64_t i = 0; i < n; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "t%03d", (int)i);
        uint32_t word = am_rng_u32(&rng, 2 * i);
        int64_t numel = am_rng_u32(&rng, 2 * i + 1) % (5 * unit);
        numel = word % 7 == 0 ? 0 : word % 7 == 1 ? numel / unit * unit : numel;
        AM_CHECK_OK(am_tensor_table_add(table, name, types[word / 7 % 4], 1, &numel));
    }
    AM_CHECK_OK(am_tensor_table_finish(table));
}

/* Disjoint, consecutive, covering: walking all slices in order meets every element once. */
static void check_slices(const am_tensor_table *table, int64_t unit, int parts)
{
    int64_t tensor = 0, element = 0, bytes = 0, largest_unit = unit * 8;
    int64_t total = am_tensor_table_bytes(table);
    for (int p = 0; p < parts; p++) {
        am_slice slice;
        int64_t elements = 0, slice_bytes = 0;
        if (!AM_CHECK_OK(am_slice_make(table, unit, parts, p, &slice))) {
            return;
        }
        for (int64_t s = 0; s < slice.n; s++) {
            const am_span *span = &slice.spans[s];
            while (tensor < table->n && element == table->t[tensor].numel) {
                tensor++;
                element = 0;
            }
            AM_CHECK_I64(span->tensor, tensor);
            AM_CHECK_I64(span->lo, element);
            AM_CHECK(span->hi > span->lo && span->lo % unit == 0);
            AM_CHECK(span->hi % unit == 0 || span->hi == table->t[span->tensor].numel);
            AM_CHECK(s == 0 || slice.spans[s - 1].tensor < span->tensor); /* one run a tensor */
            element = span->hi;
            elements += span->hi - span->lo;
            slice_bytes += (span->hi - span->lo) * am_dtype_bytes(table->t[span->tensor].dtype);
        }
        AM_CHECK_I64(slice.elements, elements);
        AM_CHECK_I64(slice.bytes, slice_bytes);
        AM_CHECK(llabs(slice_bytes - total / parts) <= largest_unit + 1); /* balanced to a unit */
        bytes += slice_bytes;
        am_slice_free(&slice);
        am_slice_free(&slice);
    }
    AM_CHECK_I64(bytes, total);
}

/* All slices at once are the slices one by one. */
static void check_all_slices(const am_tensor_table *table, int64_t unit, int parts)
{
    am_slices all;
    int64_t wrong = 0;
    AM_CHECK_OK(am_slices_make(table, unit, parts, &all));
    for (int p = 0; p < parts; p++) {
        am_slice one;
        AM_CHECK_OK(am_slice_make(table, unit, parts, p, &one));
        wrong += one.n != all.first[p + 1] - all.first[p];
        for (int64_t s = 0; s < one.n && wrong == 0; s++) {
            const am_span *a = &one.spans[s], *b = &all.spans[all.first[p] + s];
            wrong += a->tensor != b->tensor || a->lo != b->lo || a->hi != b->hi;
        }
        am_slice_free(&one);
    }
    AM_CHECK_I64(wrong, 0);
    am_slices_free(&all);
}

/* The rule of the header, unit by unit: the part in whose share of the bytes the midpoint lies. */
static void check_owners(const am_tensor_table *table, int64_t unit, int parts)
{
    int64_t before = 0, total = am_tensor_table_bytes(table), wrong = 0;
    am_slice slice[PARTS];
    for (int p = 0; p < parts; p++) {
        AM_CHECK_OK(am_slice_make(table, unit, parts, p, &slice[p]));
    }
    for (int64_t t = 0; t < table->n; t++) {
        int64_t numel = table->t[t].numel, size = am_dtype_bytes(table->t[t].dtype);
        for (int64_t lo = 0; lo < numel; lo += unit) {
            int64_t hi = lo + unit < numel ? lo + unit : numel, met = 0;
            int64_t twice_middle = 2 * before + (hi - lo) * size; /* in bytes */
            int owner = (int)(twice_middle * parts / (2 * total));
            for (int64_t s = 0; s < slice[owner].n; s++) {
                const am_span *span = &slice[owner].spans[s];
                met += span->tensor == t && span->lo <= lo && hi <= span->hi;
            }
            wrong += met != 1;
            before += (hi - lo) * size;
        }
    }
    AM_CHECK_I64(wrong, 0);
    for (int p = 0; p < parts; p++) {
        am_slice_free(&slice[p]);
    }
}

static void slices(void)
{
    static const int64_t counts[] = {0, 1, 2, 5, 40};
    for (int64_t round = 0; round < 40; round++) {
        am_tensor_table table = {0};
        int64_t unit = round % 2 == 0 ? 16 : 100;
        make_table(&table, counts[round % 5], unit, round);
        for (int parts = 1; parts <= PARTS; parts++) {
            check_slices(&table, unit, parts);
            check_all_slices(&table, unit, parts);
            check_owners(&table, unit, parts);
        }
        am_tensor_table_free(&table);
    }
}

/* A table of 2^60 bytes: products of bytes and parts must not overflow. */
static void huge_slices(void)
{
    am_tensor_table table = {0};
    const int64_t shape[1] = {INT64_C(1) << 57};
    AM_CHECK_OK(am_tensor_table_add(&table, "a", AM_DTYPE_F64, 1, shape));
    for (int p = 0; p < 1000; p += 333) {
        am_slice slice;
        AM_CHECK_OK(am_slice_make(&table, AM_BLOCK, 1000, p, &slice));
        AM_CHECK_NEAR((double)slice.bytes, 0x1p60 / 1000, 8.0 * AM_BLOCK);
        am_slice_free(&slice);
    }
    am_tensor_table_free(&table);
}

/* More parts than units: each unit has one owner, other slices are empty. */
static void more_parts_than_units(void)
{
    am_tensor_table table = {0};
    const int64_t shape[1] = {AM_CHUNK + 1};
    AM_CHECK_OK(am_tensor_table_add(&table, "a", AM_DTYPE_F32, 1, shape));
    int64_t owners = 0;
    for (int p = 0; p < PARTS; p++) {
        am_slice slice;
        AM_CHECK_OK(am_slice_make(&table, AM_CHUNK, PARTS, p, &slice));
        owners += slice.n;
        am_slice_free(&slice);
    }
    AM_CHECK_I64(owners, 2);
    am_tensor_table_free(&table);
}

static void balance(void)
{
    const int64_t cost[] = {3, 9, 3, 5, 5, 1};
    int owner[6];
    am_part_balance(cost, 6, 3, owner);
    /* falling cost: 9->0, 5->1, 5->2, 3->1 (5+3), 3->2 (5+3), 1->1 (tie at 8: lowest) */
    const int by_hand[] = {1, 0, 2, 1, 2, 1};
    for (int i = 0; i < 6; i++) {
        AM_CHECK_I64(owner[i], by_hand[i]);
    }
    am_rng rng = am_rng_make(am_test_seed(), "balance", 0, 0, "");
    for (int groups = 1; groups <= PARTS; groups++) {
        int64_t random_cost[50], load[PARTS] = {0}, total = 0, most = 0, longest = 0;
        int owners[50];
        for (int i = 0; i < 50; i++) {
            random_cost[i] = 1 + am_rng_u32(&rng, 50 * groups + i) % 1000;
            total += random_cost[i];
            longest = random_cost[i] > longest ? random_cost[i] : longest;
        }
        am_part_balance(random_cost, 50, groups, owners);
        for (int i = 0; i < 50; i++) {
            if (AM_CHECK(owners[i] >= 0 && owners[i] < groups)) {
                load[owners[i]] += random_cost[i];
            }
        }
        for (int g = 0; g < groups; g++) {
            most = load[g] > most ? load[g] : most;
        }
        AM_CHECK(most <= total / groups + longest); /* list scheduling's bound */
    }
}

static const am_test tests[] = {
    AM_TEST(ranges),
    AM_TEST(units),
    AM_TEST(slices),
    AM_TEST(huge_slices),
    AM_TEST(more_parts_than_units),
    AM_TEST(balance),
};
AM_TEST_MAIN("partition", tests)
