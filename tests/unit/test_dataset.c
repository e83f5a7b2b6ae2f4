/* Data set files: what is read on every rank, and every rule whose violation must be refused with
 * the same code on all ranks. Seven ranks are more than some splits have samples.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/am_test.h"
#include "io/dataset/dataset.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/runtime.h"

enum { PIXELS = 784 };
static const int64_t no_limit[AM_SPLITS] = {0, 0, 0};

static uint8_t pixel_of(int split, int64_t sample, int64_t j)
{
    return (uint8_t)(31 * split + 7 * sample + j * j);
}

/* ---- files as users make them ---- */

/* What one dataset of a made file looks like. */
typedef struct am_shape {
    hid_t type;
    int dims;
    hsize_t shape[3];
    const void *data;
} am_shape;

static bool put(hid_t group, const char *key, const am_shape *s)
{
    hid_t space = H5Screate_simple(s->dims, s->shape, NULL);
    hid_t set = H5Dcreate2(group, key, s->type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool is_put = H5Dwrite(set, s->type, H5S_ALL, H5S_ALL, H5P_DEFAULT, s->data) >= 0;
    return is_put && H5Dclose(set) >= 0 && H5Sclose(space) >= 0;
}

static bool put_text(hid_t file, const char *key, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    bool is_put = H5Tset_size(type, H5T_VARIABLE) >= 0; /* as h5py writes str */
    hid_t attribute = H5Acreate2(file, key, type, space, H5P_DEFAULT, H5P_DEFAULT);
    is_put = is_put && H5Awrite(attribute, type, &text) >= 0;
    return is_put && H5Aclose(attribute) >= 0 && H5Sclose(space) >= 0 && H5Tclose(type) >= 0;
}

/* A file whose three splits are (x, y) but for one split that has (other_x, other_y); rank 0. */
static void make_file_all(const char *path, const char *classes, const am_shape *x,
                          const am_shape *y, int other, const am_shape *other_x,
                          const am_shape *other_y)
{
    static const char *const names[AM_SPLITS] = {"train", "validation", "test"};
    if (am_world_rank() == 0) {
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
        AM_CHECK(classes == NULL || put_text(file, "classes", classes));
        for (int s = 0; s < AM_SPLITS; s++) {
            const am_shape *a = s == other ? other_x : x, *b = s == other ? other_y : y;
            hid_t group = H5Gcreate2(file, names[s], H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            AM_CHECK(a == NULL || put(group, "x", a));
            AM_CHECK(b == NULL || put(group, "y", b));
            AM_CHECK(H5Gclose(group) >= 0);
        }
        AM_CHECK(H5Fclose(file) >= 0);
    }
    AM_CHECK_OK(am_agree_all(am_world(), 0)); /* the file is there for all */
}

static void refuse_all(const char *path, int code, const char *part)
{
    am_dataset *data = NULL;
    AM_CHECK_CODE(am_dataset_open_all(am_world(), path, no_limit, 0, &data), code);
    AM_CHECK_CONTAINS(am_error_message(), path);
    AM_CHECK_CONTAINS(am_error_message(), part);
    AM_CHECK(data == NULL);
    am_error_clear();
}

/* ---- prepared files ---- */

static bool make_prepared(am_prepared *p)
{
    static const int64_t n[AM_SPLITS] = {5, 2, 3};
    *p = (am_prepared){.classes = 3};
    p->class_name = am_new(3, sizeof *p->class_name, "test");
    for (int64_t k = 0; k < 3; k++) {
        p->class_name[k] = strdup(k == 0 ? "caf\xC3\xA9" : k == 1 ? "\"b\"" : "c");
    }
    p->source = strdup("pictures 1.0-1");
    p->licence = strdup("CC0");
    for (int s = 0; s < AM_SPLITS; s++) {
        p->n[s] = n[s];
        p->x[s] = am_new(n[s], PIXELS, "test");
        p->y[s] = am_new(n[s], sizeof(int32_t), "test");
        for (int64_t i = 0; i < n[s]; i++) {
            p->y[s][i] = (int32_t)((i + s) % 3);
            for (int64_t j = 0; j < PIXELS; j++) {
                p->x[s][i * PIXELS + j] = pixel_of(s, i, j);
            }
        }
    }
    return p->source != NULL && p->licence != NULL;
}

/* Rank 0 writes PATH; all ranks return when it is there. */
static void write_prepared_all(const char *path)
{
    if (am_world_rank() == 0) {
        am_prepared p;
        AM_CHECK(make_prepared(&p));
        AM_CHECK_OK(am_prepared_write(path, "pictures", 9, &p, true));
        am_prepared_free(&p);
    }
    AM_CHECK_OK(am_agree_all(am_world(), 0));
}

static void test_prepared_file_is_read_by_every_rank(void)
{
    const char *path = am_test_path("good.h5");
    static const int64_t n[AM_SPLITS] = {5, 2, 3};
    am_dataset *data = NULL;
    write_prepared_all(path);
    AM_CHECK_OK(am_dataset_open_all(am_world(), path, no_limit, 0, &data));
    if (!AM_CHECK(data != NULL)) {
        return; /* the same on all ranks: open agrees */
    }
    AM_CHECK_TEXT(am_dataset_name(data), "pictures");
    AM_CHECK_I64(am_dataset_classes(data), 3);
    AM_CHECK_I64(am_dataset_features(data), PIXELS);
    AM_CHECK_TEXT(am_dataset_class_name(data, 0), "caf\xC3\xA9");
    AM_CHECK_TEXT(am_dataset_class_name(data, 1), "\"b\"");
    AM_CHECK(am_dataset_class_name(data, 3) == NULL);
    for (int s = 0; s < AM_SPLITS; s++) {
        am_samples samples = am_dataset_samples(data, (am_split)s);
        float x[2 * PIXELS];
        int32_t y[2];
        AM_CHECK_I64(samples.n, n[s]);
        AM_CHECK_I64(samples.features, PIXELS);
        AM_CHECK_I64(samples.classes, 3);
        const int64_t index[2] = {n[s] - 1, 0};
        AM_CHECK_OK(samples.gather(samples.self, index, 2, x, y));
        for (int64_t i = 0; i < 2; i++) {
            AM_CHECK_I64(y[i], (index[i] + s) % 3);
            for (int64_t j = 0; j < PIXELS; j++) {
                AM_CHECK_SAME_F64(x[i * PIXELS + j], (float)pixel_of(s, index[i], j) / 255.0f);
            }
        }
        for (int64_t bad = -1; bad <= n[s]; bad += n[s] + 1) {
            AM_CHECK_CODE(samples.gather(samples.self, &bad, 1, x, y), AM_E_BUG);
            am_error_clear();
        }
    }
    am_dataset_close(&data);
    AM_CHECK(data == NULL);
}

static void test_a_limit_takes_the_first_samples(void)
{
    const char *path = am_test_path("limit.h5");
    const int64_t limit[AM_SPLITS] = {2, 0, 100};
    am_dataset *data = NULL;
    write_prepared_all(path);
    AM_CHECK_OK(am_dataset_open_all(am_world(), path, limit, 0, &data));
    if (!AM_CHECK(data != NULL)) {
        return;
    }
    float x[PIXELS];
    int32_t y;
    am_samples train = am_dataset_samples(data, AM_TRAIN);
    AM_CHECK_I64(train.n, 2);
    AM_CHECK_I64(am_dataset_samples(data, AM_VALIDATION).n, 2);
    AM_CHECK_I64(am_dataset_samples(data, AM_TEST).n, 3);
    AM_CHECK_OK(train.gather(train.self, (const int64_t[]){1}, 1, x, &y));
    AM_CHECK_SAME_F64(x[5], (float)pixel_of(0, 1, 5) / 255.0f);
    am_dataset_close(&data);
}

/* Every byte of a file, owned. */
static unsigned char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    unsigned char *bytes = NULL;
    if (AM_CHECK(f != NULL && fstat(fileno(f), &st) == 0)) {
        *n = (size_t)st.st_size;
        bytes = malloc(*n);
        AM_CHECK(bytes != NULL && fread(bytes, 1, *n, f) == *n);
        (void)fclose(f);
    }
    return bytes;
}

static void test_the_same_samples_give_the_same_bytes(void)
{
    if (am_world_rank() != 0) {
        return; /* no collective call below */
    }
    const char *a = am_test_path("a.h5"), *b = am_test_path("b.h5");
    am_prepared p;
    size_t n_a = 0, n_b = 1;
    bool is_present = true;
    AM_CHECK(make_prepared(&p));
    AM_CHECK_OK(am_prepared_present(a, "pictures", 1, &is_present));
    AM_CHECK(!is_present);
    AM_CHECK_OK(am_prepared_write(a, "pictures", 1, &p, false));
    sleep(1); /* a time stamp in the file would differ */
    AM_CHECK_OK(am_prepared_write(b, "pictures", 1, &p, false));
    unsigned char *bytes_a = slurp(a, &n_a), *bytes_b = slurp(b, &n_b);
    AM_CHECK(n_a == n_b && memcmp(bytes_a, bytes_b, n_a) == 0);
    free(bytes_a);
    free(bytes_b);

    AM_CHECK_CODE(am_prepared_write(a, "pictures", 1, &p, false), AM_E_CREATE);
    AM_CHECK_CONTAINS(am_error_message(), "--overwrite");
    am_error_clear();
    AM_CHECK_OK(am_prepared_present(a, "pictures", 1, &is_present));
    AM_CHECK(is_present);
    AM_CHECK_CODE(am_prepared_present(a, "pictures", 2, &is_present), AM_E_CREATE);
    am_error_clear();
    AM_CHECK_CODE(am_prepared_present(a, "paintings", 1, &is_present), AM_E_CREATE);
    am_error_clear();
    AM_CHECK_CODE(am_prepared_write(am_test_path("no/such/x.h5"), "x", 0, &p, false), AM_E_CREATE);
    am_error_clear();
    AM_CHECK(access(am_test_path("a.h5.partial"), F_OK) != 0);
    am_prepared_free(&p);
}

/* ---- users' files ---- */

static const float real_x[12] = {0.5f, -1.0f, 3e8f, 0, 1, 2, 3, 4, 5, 6, 7, 0.1f};
static const uint8_t labels[2] = {1, 0};

static void test_reals_of_any_rank_are_taken_as_they_are(void)
{
    const char *path = am_test_path("mine.real.h5");
    double wide[12];
    for (int i = 0; i < 12; i++) {
        wide[i] = i == 0 ? 0.1 : real_x[i]; /* 0.1 is rounded to f32 once */
    }
    const am_shape x = {H5T_IEEE_F32BE, 3, {2, 3, 2}, real_x}, y = {H5T_STD_U8LE, 1, {2}, labels};
    const am_shape f64 = {H5T_IEEE_F64LE, 2, {2, 6}, wide};
    float swapped[12];
    for (int i = 0; i < 12; i++) { /* what a big-endian file holds */
        uint32_t bits;
        memcpy(&bits, &real_x[i], 4);
        bits = __builtin_bswap32(bits);
        memcpy(&swapped[i], &bits, 4);
    }
    const am_shape big = {x.type, x.dims, {2, 3, 2}, swapped};
    am_dataset *data = NULL;
    make_file_all(path, NULL, &big, &y, AM_TEST, &f64, &y);
    AM_CHECK_OK(am_dataset_open_all(am_world(), path, no_limit, 0, &data));
    if (!AM_CHECK(data != NULL)) {
        return;
    }
    AM_CHECK_TEXT(am_dataset_name(data), "mine.real");
    AM_CHECK_I64(am_dataset_classes(data), 2); /* from the largest label */
    AM_CHECK_I64(am_dataset_features(data), 6);
    AM_CHECK(am_dataset_class_name(data, 0) == NULL);
    float got[12];
    int32_t label[2];
    am_samples train = am_dataset_samples(data, AM_TRAIN), test = am_dataset_samples(data, AM_TEST);
    AM_CHECK_OK(train.gather(train.self, (const int64_t[]){0, 1}, 2, got, label));
    AM_CHECK(memcmp(got, real_x, sizeof got) == 0);
    AM_CHECK(label[0] == 1 && label[1] == 0);
    AM_CHECK_OK(test.gather(test.self, (const int64_t[]){0, 1}, 2, got, label));
    AM_CHECK_SAME_F64(got[0], 0.1f);
    AM_CHECK(memcmp(got + 1, real_x + 1, sizeof got - sizeof *got) == 0);
    am_dataset_close(&data);
}

static void test_files_that_break_a_rule_are_refused(void)
{
    const char *path = am_test_path("bad.h5");
    static const int16_t shorts[12] = {0};
    static const int64_t negative[2] = {0, -1}, huge[2] = {0, INT64_C(1) << 40};
    static const float nan_x[12] = {[7] = NAN};
    static const double over_x[12] = {[11] = 1e300};
    const am_shape x = {H5T_IEEE_F32LE, 2, {2, 6}, real_x}, y = {H5T_STD_U8LE, 1, {2}, labels};
    const struct {
        am_shape x, y;
        const char *classes, *part;
    } cases[] = {
        {{H5T_STD_I16LE, 2, {2, 6}, shorts}, y, NULL, "validation/x must be u8, f32 or f64"},
        {{H5T_STD_I8LE, 2, {2, 6}, shorts}, y, NULL, "validation/x must be u8"},
        {x, {H5T_IEEE_F32LE, 1, {2}, real_x}, NULL, "validation/y must hold integers"},
        {x, {H5T_STD_U8LE, 2, {2, 1}, labels}, NULL, "validation/x must be [n, ...]"},
        {x, {H5T_STD_U8LE, 1, {1}, labels}, NULL, "validation/x must be [n, ...]"},
        {{H5T_IEEE_F32LE, 1, {2}, real_x}, y, NULL, "validation/x must be [n, ...]"},
        {{H5T_IEEE_F32LE, 2, {2, 5}, real_x}, y, NULL, "has 5 features, train/x has 6"},
        {{H5T_IEEE_F32LE, 2, {0, 6}, real_x}, {H5T_STD_U8LE, 1, {0}, labels}, NULL, "at least 1"},
        {x, {H5T_STD_I64LE, 1, {2}, negative}, NULL, "validation/y[1] is -1"},
        {x, {H5T_STD_I64LE, 1, {2}, huge}, NULL, "validation/y[1] is 1099511627776"},
        {{H5T_IEEE_F32LE, 2, {2, 6}, nan_x}, y, NULL, "not a finite f32, in sample 1"},
        {{H5T_IEEE_F64LE, 2, {2, 6}, over_x}, y, NULL, "not a finite f32, in sample 1"},
        {x, y, "[\"only\"]", "train/y[0] is 1 but there are 1 classes"},
        {x, y, "[\"a\", 2]", "must be a JSON array of class names"},
        {x, y, "a, b", "must be a JSON array of class names"},
        {x, y, "[]", "must be a JSON array of class names"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_file_all(path, cases[i].classes, &x, &y, AM_VALIDATION, &cases[i].x, &cases[i].y);
        refuse_all(path, AM_E_DATA, cases[i].part);
    }
    make_file_all(path, NULL, &x, &y, AM_TEST, &x, NULL);
    refuse_all(path, AM_E_DATA, "no dataset test/y");
}

static void test_files_that_are_none_are_refused(void)
{
    refuse_all(am_test_path("absent.h5"), AM_E_NOINPUT, "allmerge data prepare");
    const char *text = am_test_path("text.h5"), *cut = am_test_path("cut.h5");
    if (am_world_rank() == 0) {
        FILE *f = fopen(text, "w");
        AM_CHECK(f != NULL && fputs("not a data set\n", f) >= 0 && fclose(f) == 0);
    }
    AM_CHECK_OK(am_agree_all(am_world(), 0));
    refuse_all(text, AM_E_DATA, "not an HDF5 file, or truncated");
    struct stat st = {0};
    write_prepared_all(cut);
    AM_CHECK(stat(cut, &st) == 0);
    AM_CHECK_OK(am_agree_all(am_world(), 0));
    for (off_t bytes = st.st_size - 1; bytes >= 0; bytes = bytes > 0 ? bytes * 3 / 5 : -1) {
        if (am_world_rank() == 0) {
            AM_CHECK(truncate(cut, bytes) == 0);
        }
        AM_CHECK_OK(am_agree_all(am_world(), 0));
        refuse_all(cut, AM_E_DATA, "truncated");
    }
}

/* Text: ids, and the next byte at every position. */
static void text_all(void)
{
    enum { N = 5, WIDTH = 8, T = WIDTH - 1 };
    static uint8_t tokens[N * WIDTH];
    static const char *const names[AM_SPLITS] = {"train", "validation", "test"};
    for (int i = 0; i < N * WIDTH; i++) {
        tokens[i] = (uint8_t)(i * 37);
    }
    for (int bad = 0; bad < 2; bad++) {
        if (am_world_rank() == 0) {
            const am_shape shape = {H5T_NATIVE_UINT8, 2, {N, bad ? 1 : WIDTH}, tokens};
            const am_shape good = {H5T_NATIVE_UINT8, 2, {N, WIDTH}, tokens};
            hid_t file = H5Fcreate("text.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
            for (int s = 0; s < AM_SPLITS; s++) {
                hid_t group = H5Gcreate2(file, names[s], H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
                AM_CHECK(put(group, "tokens", s == 1 ? &shape : &good));
                AM_CHECK(H5Gclose(group) >= 0);
            }
            AM_CHECK(H5Fclose(file) >= 0);
        }
        AM_CHECK_OK(am_agree_all(am_world(), 0));
        if (bad) {
            refuse_all("text.h5", AM_E_DATA, "validation/tokens must be [n, T + 1]");
            continue;
        }
        am_dataset *data = NULL;
        if (AM_CHECK_OK(am_dataset_open_all(am_world(), "text.h5", no_limit, 0, &data))) {
            float x[2 * T];
            int32_t y[2 * T];
            const int64_t index[2] = {4, 1};
            const am_samples s = am_dataset_samples(data, AM_TEST);
            AM_CHECK(am_dataset_is_text(data));
            AM_CHECK_I64(s.n, N);
            AM_CHECK_I64(s.features, T);
            AM_CHECK_I64(s.labels, T);
            AM_CHECK_I64(s.classes, 256);
            AM_CHECK_OK(s.gather(s.self, index, 2, x, y));
            for (int i = 0; i < 2 * T; i++) {
                const int64_t at = index[i / T] * WIDTH + i % T;
                AM_CHECK(x[i] == (float)tokens[at]);
                AM_CHECK_I64(y[i], tokens[at + 1]);
            }
        }
        am_dataset_close(&data);
    }
}

static const am_test tests[] = {
    AM_TEST(text_all),
    AM_TEST(test_prepared_file_is_read_by_every_rank),
    AM_TEST(test_a_limit_takes_the_first_samples),
    AM_TEST(test_the_same_samples_give_the_same_bytes),
    AM_TEST(test_reals_of_any_rank_are_taken_as_they_are),
    AM_TEST(test_files_that_break_a_rule_are_refused),
    AM_TEST(test_files_that_are_none_are_refused),
};
AM_TEST_MAIN("dataset", tests)
