/* The vector tree against a naive one that every rank computes whole: same bits for any rank count.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "tests/am_test.h"

enum { MOST_LEAVES = 33, MOST_N = 9001 };

/* Element i of leaf m: mixed scales, so that every order of addition gives other bits. */
static double leaf_value(int64_t m, int64_t i, int64_t round)
{
    am_rng rng = am_rng_make(am_test_seed(), "tree", round, m, "");
    uint32_t word = am_rng_u32(&rng, i);
    return ldexp((double)(int32_t)word, (int)(word % 41) - 60);
}

static void naive_tree_f64(double *level, int64_t count)
{
    for (; count > 1; count = (count + 1) / 2) {
        for (int64_t i = 0; i < count / 2; i++) {
            level[i] = level[2 * i] + level[2 * i + 1];
        }
        if (count % 2 == 1) {
            level[count / 2] = level[count - 1];
        }
    }
}

static void naive_tree_f32(float *level, int64_t count)
{
    for (; count > 1; count = (count + 1) / 2) {
        for (int64_t i = 0; i < count / 2; i++) {
            level[i] = level[2 * i] + level[2 * i + 1];
        }
        if (count % 2 == 1) {
            level[count / 2] = level[count - 1];
        }
    }
}

static double naive_root(int64_t leaves, int64_t i, int bytes, int64_t round)
{
    double wide[MOST_LEAVES];
    float narrow[MOST_LEAVES];
    for (int64_t m = 0; m < leaves; m++) {
        wide[m] = leaf_value(m, i, round);
        narrow[m] = (float)wide[m];
    }
    naive_tree_f64(wide, leaves);
    naive_tree_f32(narrow, leaves);
    return bytes == 8 ? wide[0] : (double)narrow[0];
}

static void put(void *vector, int64_t i, int bytes, double value)
{
    if (bytes == 8) {
        ((double *)vector)[i] = value;
    } else {
        ((float *)vector)[i] = (float)value;
    }
}

static double get(const void *vector, int64_t i, int bytes)
{
    return bytes == 8 ? ((const double *)vector)[i] : (double)((const float *)vector)[i];
}

static void one_round_all(am_tree *tree, int64_t leaves, int64_t n, int bytes, bool everywhere,
                          int64_t round)
{
    static double sum[MOST_N + 1];
    int64_t lo = 0, hi = 0;
    am_tree_leaves(tree, &lo, &hi);
    for (int64_t m = lo; m < hi; m++) {
        void *leaf = am_tree_next(tree);
        for (int64_t i = 0; i < n; i++) {
            put(leaf, i, bytes, leaf_value(m, i, round));
        }
        am_tree_push(tree);
    }
    memset(sum, 0x55, sizeof sum);
    AM_CHECK_OK(am_tree_sum_all(tree, sum, everywhere));
    am_tree_part(n, am_world_size(), am_world_rank(), &lo, &hi);
    int64_t wrong = 0;
    for (int64_t i = everywhere ? 0 : lo; i < (everywhere ? n : hi); i++) {
        wrong += get(sum, i, bytes) != naive_root(leaves, i, bytes, round);
    }
    AM_CHECK_I64(wrong, 0);
    const unsigned char *end = (const unsigned char *)sum + n * bytes;
    AM_CHECK(end[0] == 0x55 && end[bytes - 1] == 0x55);
}

/* The root without a copy. */
static void root_round_all(am_tree *tree, int64_t leaves, int64_t n, int bytes, int64_t round)
{
    static double buffer[MOST_N + 1];
    const void *root = NULL;
    int64_t lo = 0, hi = 0, wrong = 0;
    am_tree_leaves(tree, &lo, &hi);
    for (int64_t m = lo; m < hi; m++) {
        void *leaf = am_tree_next(tree);
        for (int64_t i = 0; i < n; i++) {
            put(leaf, i, bytes, leaf_value(m, i, round));
        }
        am_tree_push(tree);
    }
    AM_CHECK_OK(am_tree_root_all(tree, buffer, &root));
    for (int64_t i = 0; i < n; i++) {
        wrong += get(root, i, bytes) != naive_root(leaves, i, bytes, round);
    }
    AM_CHECK_I64(wrong, 0);
}

static void compare_all(int64_t leaves, int64_t n, int bytes)
{
    am_tree *tree = NULL;
    if (AM_CHECK_OK(am_tree_create_all(am_world(), leaves, n, bytes, &tree))) {
        int64_t lo = 0, hi = 0, first = 0, end = 0;
        am_tree_leaves(tree, &lo, &hi);
        am_part_range(leaves, am_world_size(), am_world_rank(), &first, &end);
        AM_CHECK(lo == first && hi == end);
        one_round_all(tree, leaves, n, bytes, true, 0);
        one_round_all(tree, leaves, n, bytes, false, 1); /* ready for the next round */
        root_round_all(tree, leaves, n, bytes, 2);
        root_round_all(tree, leaves, n, bytes, 3);
    }
    am_tree_free(&tree);
    AM_CHECK(tree == NULL);
    am_tree_free(&tree);
}

static void every_shape_all(void)
{
    for (int64_t leaves = 1; leaves <= 17; leaves++) {
        for (int bytes = 4; bytes <= 8; bytes += 4) {
            compare_all(leaves, 37, bytes);
        }
    }
    compare_all(33, 5, 8);
}

static void odd_lengths_all(void)
{
    static const int64_t lengths[] = {0, 1, 2, 3, 6, 1000, MOST_N};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        compare_all(5, lengths[i], 4);
        compare_all(8, lengths[i], 8);
    }
}

/* Messages cut into pieces change nothing. */
static void split_messages_all(void)
{
    am_bigcount_set_limit(56);
    compare_all(7, 1001, 4);
    compare_all(6, 333, 8);
    am_bigcount_set_limit((int64_t)1 << 30);
}

/* Longer than one window of the exchange (2^18 reals for each part). */
static void several_windows_all(void)
{
    const int64_t leaves = 3, n = (int64_t)am_world_size() * ((1 << 18) + 77) + 1;
    am_tree *tree = NULL;
    float *sum = calloc((size_t)n, sizeof *sum);
    AM_CHECK(sum != NULL);
    if (AM_CHECK_OK(am_tree_create_all(am_world(), leaves, n, 4, &tree)) && sum != NULL) {
        int64_t lo = 0, hi = 0, wrong = 0;
        am_tree_leaves(tree, &lo, &hi);
        for (int64_t m = lo; m < hi; m++) {
            float *leaf = am_tree_next(tree);
            for (int64_t i = 0; i < n; i++) {
                leaf[i] = (float)(i % 1000 + 1) * (m == 0 ? 1e8f : m == 1 ? -1e8f : 1.25f);
            }
            am_tree_push(tree);
        }
        AM_CHECK_OK(am_tree_sum_all(tree, sum, true));
        for (int64_t i = 0; i < n; i++) {
            float x = (float)(i % 1000 + 1), expected = (x * 1e8f + x * -1e8f) + x * 1.25f;
            wrong += sum[i] != expected;
        }
        AM_CHECK_I64(wrong, 0);
    }
    am_tree_free(&tree);
    free(sum);
}

/* The same through messages, as between nodes. */
static void through_messages_all(void)
{
    AM_CHECK(setenv("AM_SHARED", "no", 1) == 0);
    every_shape_all();
    odd_lengths_all();
    split_messages_all();
    several_windows_all();
    AM_CHECK(unsetenv("AM_SHARED") == 0);
}

static const am_test tests[] = {
    AM_TEST(every_shape_all),     AM_TEST(odd_lengths_all),      AM_TEST(split_messages_all),
    AM_TEST(several_windows_all), AM_TEST(through_messages_all),
};
AM_TEST_MAIN("tree", tests)
