/* Data sets that are read in pages: for every way a file may store its samples, the same bytes as
 * when it is kept whole; errors by their own message; a file that changes is noticed.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <hdf5.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/am_test.h"
#include "io/dataset/dataset.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"

enum { N = 6000, H = 9, W = 8, BATCH = 50 };
static const int64_t no_limit[AM_SPLITS] = {0, 0, 0};
static const int64_t room = 8 * (int64_t)(16 << 10);

/* How the datasets of a file are stored. */
typedef struct am_way {
    const char *name;
    hid_t x, y;       /* file types; x -1: tokens */
    hsize_t chunk[3]; /* of x; 0: contiguous */
    hsize_t y_chunk;
    bool is_packed; /* shuffle, deflate, checksum */
    const char *classes;
} am_way;

static int64_t label_of(int split, int64_t i)
{
    return (i * 7 + split) % 10;
}

static hid_t plan_of(int dims, const hsize_t *chunk, bool is_packed)
{
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk[0] > 0) {
        AM_CHECK(H5Pset_chunk(plan, dims, chunk) >= 0);
    }
    if (is_packed) {
        AM_CHECK(H5Pset_shuffle(plan) >= 0 && H5Pset_deflate(plan, 4) >= 0 &&
                 H5Pset_fletcher32(plan) >= 0);
    }
    return plan;
}

static void put(hid_t group, const char *key, hid_t type, hid_t memory, int dims,
                const hsize_t *shape, const hsize_t *chunk, bool is_packed, const void *values)
{
    hid_t plan = plan_of(dims, chunk, is_packed), space = H5Screate_simple(dims, shape, NULL);
    hid_t set = H5Dcreate2(group, key, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    AM_CHECK(H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    AM_CHECK(H5Dclose(set) >= 0 && H5Sclose(space) >= 0 && H5Pclose(plan) >= 0);
}

static void put_split(hid_t file, int split, const am_way *way, int64_t bad)
{
    static const char *const names[AM_SPLITS] = {"train", "validation", "test"};
    const hsize_t n = split == AM_TRAIN ? N : N / 10 + (hsize_t)split, shape[] = {n, H, W};
    const hsize_t flat[] = {n, H * W};
    hid_t group = H5Gcreate2(file, names[split], H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    double *x = am_new((int64_t)n * H * W, sizeof *x, "test");
    int64_t *y = am_new((int64_t)n, sizeof *y, "test");
    for (int64_t i = 0; i < (int64_t)n * H * W; i++) {
        const int64_t v = (i * 2654435761 + split) >> 7 & 255;
        x[i] = way->x == H5T_STD_U8LE || way->x == -1 ? (double)v : (double)v / 7 - 3;
    }
    for (int64_t i = 0; i < (int64_t)n; i++) {
        y[i] = label_of(split, i);
    }
    if (bad >= 0 && split == AM_TRAIN) {
        x[bad * H * W + 5] = NAN;
        y[bad + 1] = 10;
    }
    if (way->x == -1) {
        put(group, "tokens", H5T_STD_U8LE, H5T_NATIVE_DOUBLE, 2, flat, way->chunk, way->is_packed,
            x);
    } else {
        put(group, "x", way->x, H5T_NATIVE_DOUBLE, 3, shape, way->chunk, way->is_packed, x);
        put(group, "y", way->y, H5T_NATIVE_INT64, 1, &n, &way->y_chunk, way->is_packed, y);
    }
    AM_CHECK(H5Gclose(group) >= 0);
    free(x);
    free(y);
}

static void make_all(const char *path, const am_way *way, int64_t bad)
{
    if (am_world_rank() == 0) {
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
        if (way->classes != NULL) {
            AM_CHECK(H5Tset_size(type, strlen(way->classes) + 1) >= 0);
            hid_t attribute = H5Acreate2(file, "classes", type, space, H5P_DEFAULT, H5P_DEFAULT);
            AM_CHECK(H5Awrite(attribute, type, way->classes) >= 0 && H5Aclose(attribute) >= 0);
        }
        for (int s = 0; s < AM_SPLITS; s++) {
            put_split(file, s, way, bad);
        }
        AM_CHECK(H5Sclose(space) >= 0 && H5Tclose(type) >= 0 && H5Fclose(file) >= 0);
    }
    AM_CHECK_OK(am_agree_all(am_world(), 0));
}

/* Every rank gathers its own batches of both and compares. */
static bool same_samples(const am_samples *whole, const am_samples *paged, int rounds)
{
    const int64_t F = whole->features, L = whole->labels;
    float *a = am_new(2 * BATCH * F, sizeof *a, "test"), *b = a + BATCH * F;
    int32_t *p = am_new(2 * BATCH * L, sizeof *p, "test"), *q = p + BATCH * L;
    const am_rng rng = am_rng_make(am_test_seed(), "paged", 0, am_world_rank(), "");
    bool is_same = true;
    for (int r = 0; r < rounds && is_same; r++) {
        int64_t index[BATCH];
        for (int i = 0; i < BATCH; i++) { /* random ones, then runs */
            index[i] = r % 3 != 2
                           ? (int64_t)(am_rng_uniform(&rng, BATCH * r + i) * (double)whole->n)
                           : (BATCH * r + i) % whole->n;
        }
        if (r % 4 != 1) {
            paged->announce(paged->self, index, BATCH);
        }
        is_same = AM_CHECK_OK(whole->gather(whole->self, index, BATCH, a, p)) &&
                  AM_CHECK_OK(paged->gather(paged->self, index, BATCH, b, q)) &&
                  memcmp(a, b, (size_t)(BATCH * F) * sizeof *a) == 0 &&
                  memcmp(p, q, (size_t)(BATCH * L) * sizeof *p) == 0;
    }
    free(a);
    free(p);
    return is_same;
}

static const char ten[] = "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\"]";

static void test_pages_hold_what_the_whole_set_does(void)
{
    const am_way ways[] = {
        {"bytes", H5T_STD_U8LE, H5T_STD_I32LE, {0}, 0, false, ten},
        {"no names", H5T_STD_U8LE, H5T_STD_U8LE, {0}, 0, false, NULL},
        {"floats", H5T_IEEE_F32LE, H5T_STD_I64LE, {0}, 0, false, ten},
        {"big-endian floats", H5T_IEEE_F32BE, H5T_STD_I16BE, {0}, 0, false, ten},
        {"doubles", H5T_IEEE_F64LE, H5T_STD_U16LE, {0}, 0, false, ten},
        {"big-endian doubles", H5T_IEEE_F64BE, H5T_STD_U32BE, {0}, 0, false, ten},
        {"chunks", H5T_STD_U8LE, H5T_STD_I8LE, {70, H, W}, 64, false, ten},
        {"chunks across samples", H5T_IEEE_F32LE, H5T_STD_I32LE, {33, 4, 5}, 600, false, ten},
        {"packed chunks", H5T_IEEE_F32BE, H5T_STD_I32BE, {55, 9, 3}, 500, true, ten},
        {"packed doubles", H5T_IEEE_F64LE, H5T_STD_I32LE, {16, 2, 8}, 7, true, NULL},
        {"tokens", -1, 0, {0}, 0, false, NULL},
        {"packed tokens", -1, 0, {90, 30}, 0, true, NULL},
    };
    const int64_t limit[AM_SPLITS] = {N - 17, 0, 11};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        const char *path = am_test_path("way.h5");
        am_dataset *whole = NULL, *paged = NULL;
        make_all(path, &ways[i], -1);
        AM_CHECK_OK(am_dataset_open_all(am_world(), path, limit, 0, &whole));
        AM_CHECK_OK(am_dataset_open_all(am_world(), path, limit, room, &paged));
        if (!AM_CHECK(whole != NULL && paged != NULL)) {
            return;
        }
        AM_CHECK_I64(am_dataset_classes(paged), am_dataset_classes(whole));
        for (int s = 0; s < AM_SPLITS; s++) {
            const am_samples a = am_dataset_samples(whole, (am_split)s);
            const am_samples b = am_dataset_samples(paged, (am_split)s);
            AM_CHECK(a.announce == NULL && b.announce != NULL);
            AM_CHECK(a.n == b.n && a.features == b.features && a.labels == b.labels);
            if (!AM_CHECK(same_samples(&a, &b, ways[i].chunk[0] == 0 ? 40 : 8))) {
                (void)am_fail(AM_E_BUG, "%s, split %d", ways[i].name, s);
                AM_CHECK_OK(AM_E_BUG);
            }
        }
        am_dataset_close(&whole);
        am_dataset_close(&paged);
        AM_CHECK_OK(am_agree_all(am_world(), 0)); /* before the file is made anew */
    }
}

static void test_what_fits_is_kept_whole(void)
{
    const am_way way = {"", H5T_STD_U8LE, H5T_STD_I32LE, {0}, 0, false, ten};
    const char *path = am_test_path("fits.h5");
    am_dataset_shape shape;
    make_all(path, &way, -1);
    AM_CHECK_OK(am_dataset_shape_all(am_world(), path, no_limit, &shape));
    const int64_t bytes = am_dataset_shape_bytes(&shape);
    for (int is_less = 0; is_less < 2; is_less++) {
        am_dataset *data = NULL;
        AM_CHECK_OK(am_dataset_open_all(am_world(), path, no_limit, bytes - is_less, &data));
        AM_CHECK((am_dataset_samples(data, AM_TEST).announce != NULL) == (is_less == 1));
        am_dataset_close(&data);
    }
    am_dataset *data = NULL;
    AM_CHECK_CODE(am_dataset_open_all(am_world(), path, no_limit, room - 1, &data), AM_E_NOMEM);
    AM_CHECK_CONTAINS(am_error_message(), path);
    AM_CHECK_CONTAINS(am_error_message(), "it takes 128.00 KiB");
    am_error_clear();
}

/* Gather one sample of the training split: the code, and a part of the message. */
static void meet(const am_dataset *data, int64_t index, int code, const char *part)
{
    const am_samples train = am_dataset_samples(data, AM_TRAIN);
    float x[H * W];
    int32_t y;
    train.announce(train.self, &index, 1); /* the error waits for who asks */
    AM_CHECK_CODE(train.gather(train.self, &index, 1, x, &y), code);
    if (code != 0) {
        AM_CHECK_CONTAINS(am_error_message(), part);
        am_error_clear();
    }
}

static void test_values_against_the_rules_are_met_where_they_are_read(void)
{
    const am_way way = {"", H5T_IEEE_F32LE, H5T_STD_I32LE, {0}, 0, false, ten};
    const char *path = am_test_path("rules.h5");
    am_dataset *data = NULL;
    make_all(path, &way, 3000);
    AM_CHECK_OK(am_dataset_open_all(am_world(), path, no_limit, room, &data));
    meet(data, 3000, AM_E_DATA, "rules.h5: train/y[3001] is 10 but there are 10 classes");
    meet(data, 5000, 0, "");
    am_dataset_close(&data);
    const am_way unnamed = {"", H5T_IEEE_F32LE, H5T_STD_I32LE, {0}, 0, false, NULL};
    make_all(path, &unnamed, 3000);
    AM_CHECK_OK(am_dataset_open_all(am_world(), path, no_limit, room, &data));
    meet(data, 3000, AM_E_DATA,
         "rules.h5: train/x holds a value that is not a finite f32, in sample 3000");
    am_dataset_close(&data);
}

static void test_a_file_that_changes_is_one_clear_error(void)
{
    const am_way way = {"", H5T_STD_U8LE, H5T_STD_I32LE, {0}, 0, false, ten};
    const char *path = am_test_path("changes.h5");
    for (int is_cut = 0; is_cut < 2; is_cut++) {
        am_dataset *data = NULL;
        make_all(path, &way, -1);
        AM_CHECK_OK(am_dataset_open_all(am_world(), path, no_limit, room, &data));
        meet(data, 10, 0, "");
        AM_CHECK_OK(am_agree_all(am_world(), 0));
        if (am_world_rank() == 0) {
            usleep(20000); /* times of files come in ticks of the kernel */
            FILE *file = fopen(path, "r+b");
            AM_CHECK(file != NULL && fseek(file, 100000, SEEK_SET) == 0);
            AM_CHECK(is_cut ? ftruncate(fileno(file), 100000) == 0 : fputc('!', file) == '!');
            AM_CHECK(fclose(file) == 0);
        }
        AM_CHECK_OK(am_agree_all(am_world(), 0));
        meet(data, N - 1, AM_E_DATA, "changes.h5 has changed while it was in use");
        am_dataset_close(&data);
    }
}

static const am_test tests[] = {
    AM_TEST(test_pages_hold_what_the_whole_set_does),
    AM_TEST(test_what_fits_is_kept_whole),
    AM_TEST(test_values_against_the_rules_are_met_where_they_are_read),
    AM_TEST(test_a_file_that_changes_is_one_clear_error),
};
AM_TEST_MAIN("paged", tests)
