/* Tensor tables, arenas and JSON text. SPDX-License-Identifier: BSD-3-Clause */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/jsonw.h"
#include "mpi/rng.h"
#include "mpi/tensor.h"
#include "tests/am_test.h"

static void dtypes(void)
{
    static const struct {
        const char *name;
        am_dtype dtype;
    } names[] = {{"F32", AM_DTYPE_F32},  {"float32", AM_DTYPE_F32},
                 {"fp32", AM_DTYPE_F32}, {"torch.bfloat16", AM_DTYPE_BF16},
                 {"Half", AM_DTYPE_F16}, {"bool", AM_DTYPE_BOOL},
                 {"u8", AM_DTYPE_U8},    {"int64", AM_DTYPE_I64},
                 {"f8", AM_DTYPE_COUNT}, {"", AM_DTYPE_COUNT}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        AM_CHECK_I64(am_dtype_parse(names[i].name), names[i].dtype);
    }
    for (int d = 0; d < AM_DTYPE_COUNT; d++) {
        AM_CHECK_I64(am_dtype_parse(am_dtype_name((am_dtype)d)), d);
    }
    AM_CHECK_I64(am_dtype_bytes(AM_DTYPE_BF16), 2);
    AM_CHECK(am_dtype_is_float(AM_DTYPE_F16) && !am_dtype_is_float(AM_DTYPE_I8));
}

static void tensor_table(void)
{
    am_tensor_table t = {0}, copy = {0};
    const int64_t shape[] = {3, 4, 0, -1}, none[] = {0};
    for (int i = 99; i >= 0; i--) {
        char name[32];
        (void)snprintf(name, sizeof name, "layer.%d", i);
        AM_CHECK_OK(am_tensor_table_add(&t, name, AM_DTYPE_F16, 2, shape));
    }
    AM_CHECK_OK(am_tensor_table_add(&t, "scalar", AM_DTYPE_F64, 0, none));
    AM_CHECK_OK(am_tensor_table_add(&t, "empty", AM_DTYPE_I8, 3, shape));
    AM_CHECK_OK(am_tensor_table_finish(&t));
    AM_CHECK_I64(t.n, 102);
    for (int64_t i = 0; i < t.n; i++) {
        AM_CHECK_I64(am_tensor_table_find(&t, t.t[i].name), i);
    }
    AM_CHECK_I64(am_tensor_table_find(&t, "layer"), -1);
    AM_CHECK_I64(am_tensor_table_numel(&t), 1201);
    AM_CHECK_I64(am_tensor_table_bytes(&t), 2408);
    AM_CHECK_TEXT(am_tensor_describe(&t.t[am_tensor_table_find(&t, "layer.7")]), "[3,4] F16");
    AM_CHECK_TEXT(am_tensor_describe(&t.t[am_tensor_table_find(&t, "scalar")]), "[] F64");
    AM_CHECK_OK(am_tensor_table_copy(&t, &copy));
    AM_CHECK(copy.n == t.n && copy.t[50].name != t.t[50].name);
    AM_CHECK_TEXT(copy.t[50].name, t.t[50].name);
    AM_CHECK_OK(am_tensor_table_add(&t, "layer.50", AM_DTYPE_F16, 2, shape));
    AM_CHECK_CODE(am_tensor_table_finish(&t), AM_E_DATA);
    AM_CHECK_TEXT(am_error_message(), "tensor layer.50 appears twice");
    am_tensor_table_free(&t);
    am_tensor_table_free(&copy);
    AM_CHECK_OK(am_tensor_table_copy(&t, &copy)); /* an empty one */
    am_tensor_table_free(&copy);
}

static void bad_tensors(void)
{
    static const struct {
        const char *name;
        int ndim;
        int64_t shape[AM_MAX_DIMS];
    } bad[] = {{"", 1, {1}},
               {"a\nb", 1, {1}},
               {"a\x7f", 1, {1}},
               {"\xff", 1, {1}},
               {"\xc0\xaf", 1, {1}},     /* overlong */
               {"\xed\xa0\x80", 1, {1}}, /* surrogate */
               {"x", 9, {1}},
               {"x", -1, {1}},
               {"x", 2, {2, -3}},
               {"x", 2, {INT64_C(1) << 32, INT64_C(1) << 31}},
               {"x", 1, {INT64_C(1) << 61}}}; /* elements fit, bytes do not */
    am_tensor_table t = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        AM_CHECK_CODE(am_tensor_table_add(&t, bad[i].name, AM_DTYPE_F32, bad[i].ndim, bad[i].shape),
                      AM_E_DATA);
        am_error_clear();
    }
    char name[AM_MAX_NAME + 2];
    memset(name, 'n', sizeof name - 1);
    name[AM_MAX_NAME + 1] = '\0';
    AM_CHECK_CODE(am_tensor_table_add(&t, name, AM_DTYPE_F32, 0, NULL), AM_E_DATA);
    am_error_clear();
    AM_CHECK_OK(am_tensor_table_add(&t, name + 1, AM_DTYPE_F32, 0, NULL));
    AM_CHECK_OK(am_tensor_table_add(&t, "\xcf\x84/\xf0\x9d\x84\x9e", AM_DTYPE_F32, 0, NULL));
    AM_CHECK_I64(t.n, 2);
    am_tensor_table_free(&t);
}

static void arenas(void)
{
    am_arena a;
    AM_CHECK_I64(am_arena_need(0), 0);
    AM_CHECK_I64(am_arena_need(1), 64);
    AM_CHECK_I64(am_arena_need(64), 64);
    AM_CHECK_OK(am_arena_create(&a, am_arena_need(100) + am_arena_need(1), "a test"));
    unsigned char *first = am_arena_take(&a, 100);
    size_t mark = am_arena_mark(&a);
    unsigned char *second = am_arena_take(&a, 1);
    AM_CHECK((uintptr_t)first % AM_ALIGN == 0 && second == first + 128);
    memset(first, 7, 128);
    am_arena_release(&a, mark);
    AM_CHECK(am_arena_take(&a, 64) == second && first[99] == 7);
    AM_CHECK_I64(a.peak, 192);
    am_arena_destroy(&a);
    am_arena_destroy(&a);
    AM_CHECK_CODE(am_arena_create(&a, (size_t)1 << 60, "the moon"), AM_E_NOMEM);
    AM_CHECK_CONTAINS(am_error_message(), "the moon: 1.00 EiB");
    am_arena_destroy(&a);
    am_error_clear();
    AM_CHECK(am_new(INT64_MAX, 8, "too much") == NULL); /* the product overflows */
    AM_CHECK_CONTAINS(am_error_message(), "too much");
    char *zeroed = am_new(1000, 1, "little"), *nothing = am_new(0, 8, "nothing");
    AM_CHECK(zeroed != NULL && zeroed[0] == 0 && zeroed[999] == 0 && nothing != NULL);
    free(zeroed);
    free(nothing);
}

static void json_text(void)
{
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "a\"b", "tab\t nl\n \x01 \\ \xcf\x84 \xff.");
    am_json_array(&j, "list");
    am_json_int(&j, NULL, INT64_MIN);
    am_json_bool(&j, NULL, true);
    am_json_array(&j, NULL);
    am_json_end_array(&j);
    am_json_object(&j, NULL);
    am_json_end_object(&j);
    am_json_string(&j, NULL, NULL);
    am_json_end_array(&j);
    am_json_real(&j, "nan", NAN);
    am_json_raw(&j, "raw", "[1]");
    am_json members = {0}, empty = {0};
    am_json_int(&members, "x", 1);
    am_json_int(&members, "y", 2);
    am_json_members(&j, &members);
    am_json_members(&j, &empty);
    am_json_end_object(&j);
    AM_CHECK_OK(am_json_finish(&j));
    AM_CHECK_TEXT(j.text,
                  "{\"a\\\"b\":\"tab\\t nl\\n \\u0001 \\\\ \xcf\x84 \xef\xbf\xbd.\",\"list\":"
                  "[-9223372036854775808,true,[],{},null],\"nan\":null,\"raw\":[1],\"x\":1,"
                  "\"y\":2}");
    am_json_free(&j);
    am_json_free(&members);
    AM_CHECK(j.text == NULL);
}

static void check_real(double x)
{
    am_json j = {0};
    am_json_real(&j, NULL, x);
    AM_CHECK_SAME_F64(strtod(j.text, NULL), x);
    AM_CHECK(j.length <= 24);
    am_json_free(&j);
}

static void json_reals(void)
{
    static const double edges[] = {0.0,
                                   -0.0,
                                   1,
                                   0.1,
                                   1e22,
                                   1e23,
                                   DBL_MAX,
                                   DBL_MIN,
                                   0x1p-1074,
                                   DBL_EPSILON,
                                   123456789012345678.0,
                                   5e-324,
                                   1 / 3.0};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        check_real(edges[i]);
        check_real(-edges[i]);
    }
    am_rng rng = am_rng_make(am_test_seed(), "json", 0, 0, "");
    for (int64_t i = 0; i < 100000; i++) {
        uint64_t bits = (uint64_t)am_rng_u32(&rng, 2 * i) << 32 | am_rng_u32(&rng, 2 * i + 1);
        double x = 0;
        memcpy(&x, &bits, sizeof x);
        if (isfinite(x)) {
            check_real(x);
        }
    }
    static const struct {
        double value;
        const char *text;
    } shortest[] = {{0.1, "0.1"}, {5e-324, "5e-324"}, {100, "100"}, {1e21, "1e+21"}, {0.3, "0.3"}};
    for (size_t i = 0; i < sizeof shortest / sizeof shortest[0]; i++) {
        am_json j = {0};
        am_json_real(&j, NULL, shortest[i].value);
        AM_CHECK_TEXT(j.text, shortest[i].text);
        am_json_free(&j);
    }
}

static const am_test tests[] = {
    AM_TEST(dtypes), AM_TEST(tensor_table), AM_TEST(bad_tensors),
    AM_TEST(arenas), AM_TEST(json_text),    AM_TEST(json_reals),
};
AM_TEST_MAIN("tables", tests)
