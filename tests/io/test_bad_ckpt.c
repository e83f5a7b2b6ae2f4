/* Untrusted checkpoints: every prefix of a sound file and a table of bad headers are refused with
 * AM_E_DATA and a message that names the file. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/checkpoint/checkpoint.h"
#include "mpi/agree.h"
#include "mpi/runtime.h"
#include "tests/am_test.h"

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    AM_CHECK(f != NULL);
    if (f != NULL) {
        AM_CHECK(fwrite(data, 1, n, f) == n);
        AM_CHECK(fclose(f) == 0);
    }
}

static int open_code_all(const char *path)
{
    am_ckpt *ckpt = NULL;
    int rc = am_ckpt_open_all(am_world(), path, &ckpt);
    am_ckpt_close(&ckpt);
    return rc;
}

/* ---- prefixes ---- */

static void make_small_all(const char *path)
{
    am_tensor_table t = {0};
    am_meta meta = {0};
    float params[12] = {1, 2, 3};
    int64_t offset[2] = {0, 6};
    AM_CHECK_OK(am_tensor_table_add(&t, "one", AM_DTYPE_F32, 2, (int64_t[]){2, 3}));
    AM_CHECK_OK(am_tensor_table_add(&t, "two", AM_DTYPE_F32, 1, (int64_t[]){6}));
    AM_CHECK_OK(am_tensor_table_finish(&t));
    AM_CHECK_OK(am_meta_set(&meta, "format", "pt"));
    am_ckpt_options options = {.meta = &meta};
    AM_CHECK_OK(am_ckpt_save_all(am_world(), path, &t, offset, params, &options));
    am_meta_free(&meta);
    am_tensor_table_free(&t);
}

static void check_prefixes_all(const char *name)
{
    static unsigned char data[1 << 16];
    char whole[4096], cut[4096];
    snprintf(whole, sizeof whole, "%s", am_test_path(name));
    snprintf(cut, sizeof cut, "%s", am_test_path("cut"));
    make_small_all(whole);
    FILE *f = fopen(whole, "rb");
    size_t n = f != NULL ? fread(data, 1, sizeof data, f) : 0;
    AM_CHECK(f != NULL && fclose(f) == 0);
    AM_CHECK(n > 100 && n < sizeof data);
    AM_CHECK_OK(open_code_all(whole));
    int64_t accepted = 0, unnamed = 0;
    for (size_t k = 0; k < n; k++) {
        write_file(cut, data, k);
        accepted += open_code_all(cut) != AM_E_DATA;
        unnamed += strstr(am_error_message(), cut) == NULL;
        am_error_clear();
    }
    AM_CHECK_I64(accepted, 0);
    AM_CHECK_I64(unnamed, 0);
    data[n] = 0; /* and bytes after the end, which only safetensors forbids */
    write_file(cut, data, n + 1);
    AM_CHECK_I64(open_code_all(cut), strstr(name, ".h5") != NULL ? 0 : AM_E_DATA);
    am_error_clear();
}

static void prefixes_of_safetensors(void)
{
    check_prefixes_all("small.safetensors");
}

static void prefixes_of_hdf5(void)
{
    check_prefixes_all("small.h5");
}

/* ---- headers ---- */

#define T(offsets) "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" offsets "}}"

static const struct header {
    const char *text;
    int data_bytes;
    const char *message; /* part of it; NULL: accepted */
} headers[] = {
    {T("[0,8]"), 8, NULL},
    {T("[0,8]") "   ", 8, NULL},
    {"{}", 0, NULL},
    {"{\"__metadata__\":{\"a\":\"b\"}}", 0, NULL},
    {"{\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, NULL},
    {"{\"e\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[0,0]}}", 0, NULL},
    {" " T("[0,8]"), 8, "not a checkpoint"},
    {"[]", 0, "not a checkpoint"},
    {"{", 0, "header"},
    {T("[0,8]") "x", 8, "header"},
    {T("[0,8]") "{}", 8, "header"},
    {"{\"a\":1}", 0, "tensor a"},
    {T("[0,8]"), 7, "truncated"},
    {T("[0,8]"), 9, "after the end"},
    {T("[8,0]"), 8, "tensor a"},
    {T("[0,4]"), 4, "tensor a"},
    {T("[4,12]"), 12, "hole"},
    {T("[-8,0]"), 8, "data_offsets"},
    {T("[0,8,8]"), 8, "tensor a"},
    {T("[0,8.0]"), 8, "data_offsets"},
    {T("\"0,8\""), 8, "tensor a"},
    {T("[0,18446744073709551624]"), 8, "header"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
     16, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
     12, "overlap"},
    {"{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "unknown dtype"},
    {"{\"a\":{\"dtype\":\"float32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "unknown dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "bad shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "bad shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,8]}}", 8,
     "a"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
     "a"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
     "dimensions"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "exactly"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "exactly"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "not a string"},
    {"{\"__metadata__\":[]}", 0, "__metadata__"},
    {"{\"__metadata__\":{\"allmerge.safetensors.header\":\"x\"}}", 0, "reserved"},
    {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "header"},
    {"{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ""},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ""},
    {"{\"a\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "header"},
    {"{\"a\xc0\xaf\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "header"},
};

static void bad_headers(void)
{
    static unsigned char data[4096];
    char path[4096];
    snprintf(path, sizeof path, "%s", am_test_path("bad.safetensors"));
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        const struct header *h = &headers[i];
        uint64_t n = strlen(h->text);
        memset(data, 0, sizeof data);
        memcpy(data, &n, 8);
        memcpy(data + 8, h->text, n);
        write_file(path, data, 8 + n + (size_t)h->data_bytes);
        int rc = open_code_all(path);
        bool is_right = rc == (h->message == NULL ? 0 : AM_E_DATA);
        if (rc != 0 && h->message != NULL) {
            is_right = is_right && strstr(am_error_message(), h->message) != NULL;
        }
        if (!AM_CHECK(is_right)) {
            printf("  header %s with %d bytes gave %d: %s\n", h->text, h->data_bytes, rc,
                   am_error_message());
        }
        am_error_clear();
    }
}

/* A header length is believed only after it was compared with the file. */
static void huge_lengths(void)
{
    static const uint64_t length[] = {
        9, 100000000, 100000001, UINT64_C(1) << 31, UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
        unsigned char data[16] = {0};
        memcpy(data, &length[i], 8);
        memcpy(data + 8, "{}", 2);
        write_file(am_test_path("huge.safetensors"), data, 10);
        AM_CHECK_CODE(open_code_all(am_test_path("huge.safetensors")), AM_E_DATA);
        am_error_clear();
    }
    AM_CHECK_CODE(open_code_all(am_test_path("absent.safetensors")), AM_E_NOINPUT);
    am_error_clear();
}

/* ---- folders ---- */

static void bad_folders(void)
{
    static const char shard[] = T("[0,8]");
    static const struct {
        const char *index, *message;
    } table[] = {
        {"{\"weight_map\":{\"a\":\"one.safetensors\"}}", NULL},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "not mapped"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not mapped"},
        {"{\"weight_map\":{\"a\":7}}", "not mapped"},
        {"{\"weight_map\":{\"a\":\"two.safetensors\"}}", "missing"},
        {"{\"weight_map\":{\"b\":\"one.safetensors\"}}", "maps tensor a"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}", "tensor b"},
        {"{\"weight_map\":{}}x", "line 1"},
        {"{}", "weight_map"},
    };
    unsigned char data[4096] = {0};
    uint64_t n = strlen(shard);
    char path[8192], folder[4096];
    snprintf(folder, sizeof folder, "%s", am_test_path("."));
    memcpy(data, &n, 8);
    memcpy(data + 8, shard, n);
    snprintf(path, sizeof path, "%s/one.safetensors", folder);
    write_file(path, data, 8 + n + 8);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
        write_file(path, table[i].index, strlen(table[i].index));
        int rc = open_code_all(folder);
        if (table[i].message == NULL) {
            AM_CHECK_I64(rc, 0);
        } else {
            AM_CHECK(rc == AM_E_DATA || rc == AM_E_NOINPUT);
            AM_CHECK_CONTAINS(am_error_message(), table[i].message);
        }
        am_error_clear();
    }
    unlink(path);
}

static const am_test tests[] = {AM_TEST(prefixes_of_safetensors), AM_TEST(prefixes_of_hdf5),
                                AM_TEST(bad_headers), AM_TEST(huge_lengths), AM_TEST(bad_folders)};
AM_TEST_MAIN("bad_ckpt", tests)
