/* Parameter tables: types, ranges, messages; sizes; nearest words.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/param.h"
#include "mpi/tensor.h"
#include "tests/am_test.h"

typedef struct settings {
    bool flag;
    int64_t count, memory;
    double alpha, free_real;
    char *name, *absent;
    int scope;
    am_dtype dtype;
} settings;

#define AT(field) offsetof(settings, field)
static const am_param table[] = {
    {"flag", AM_PARAM_BOOL, AT(flag), "no", 0, 0, NULL, "a switch"},
    {"count", AM_PARAM_INT, AT(count), "3", 1, 8, NULL, "how many"},
    {"memory", AM_PARAM_BYTES, AT(memory), "512MiB", 1024, 1e15, NULL, "budget"},
    {"alpha", AM_PARAM_REAL, AT(alpha), NULL, 0, 1, NULL, "weight"},
    {"free_real", AM_PARAM_REAL, AT(free_real), "-1e-3", 0, 0, NULL, "any"},
    {"name", AM_PARAM_STRING, AT(name), "model", 0, 0, NULL, "a name"},
    {"absent", AM_PARAM_STRING, AT(absent), "", 0, 0, NULL, "nothing by default"},
    {"scope", AM_PARAM_CHOICE, AT(scope), "tensor", 0, 0, "tensor|global|layer", "where"},
    {"dtype", AM_PARAM_DTYPE, AT(dtype), "float32", 0, 0, NULL, "element type"},
    {NULL, AM_PARAM_BOOL, 0, NULL, 0, 0, NULL, NULL},
};

static void defaults(void)
{
    settings s;
    memset(&s, 0xee, sizeof s);
    AM_CHECK_OK(am_param_defaults(table, &s));
    AM_CHECK(!s.flag && s.count == 3 && s.memory == 512 << 20 && s.free_real == -1e-3);
    AM_CHECK_TEXT(s.name, "model");
    AM_CHECK_TEXT(s.absent, NULL);
    AM_CHECK(s.scope == 0 && s.dtype == AM_DTYPE_F32);
    am_param_free(table, &s);
    AM_CHECK(s.name == NULL);
    static const am_param bad[] = {{"x", AM_PARAM_INT, AT(count), "9", 1, 8, NULL, "h"},
                                   {NULL, AM_PARAM_INT, 0, NULL, 0, 0, NULL, NULL}};
    AM_CHECK_CODE(am_param_defaults(bad, &s), AM_E_BUG);
}

/* Each line: a key, a text that is taken. */
static void accepted(void)
{
    settings s = {0};
    static const char *const bools[] = {"true", "True", "TRUE", "yes", "on", "On"};
    for (int i = 0; i < 6; i++) {
        s.flag = false;
        AM_CHECK_OK(am_param_set(table, &s, "flag", bools[i], "here"));
        AM_CHECK(s.flag);
    }
    static const char *const off[] = {"false", "no", "OFF", "No"};
    for (int i = 0; i < 4; i++) {
        s.flag = true;
        AM_CHECK_OK(am_param_set(table, &s, "flag", off[i], "here"));
        AM_CHECK(!s.flag);
    }
    AM_CHECK_OK(am_param_set(table, &s, "count", "0x8", "here"));
    AM_CHECK_I64(s.count, 8);
    AM_CHECK_OK(am_param_set(table, &s, "count", "01", "here"));
    AM_CHECK_I64(s.count, 1);
    AM_CHECK_OK(am_param_set(table, &s, "alpha", "1e-3", "here"));
    AM_CHECK_SAME_F64(s.alpha, 1e-3);
    AM_CHECK_OK(am_param_set(table, &s, "alpha", ".5", "here"));
    AM_CHECK_SAME_F64(s.alpha, 0.5);
    AM_CHECK_OK(am_param_set(table, &s, "alpha", "1", "here"));
    AM_CHECK_OK(am_param_set(table, &s, "free_real", "-1.5E+300", "here"));
    AM_CHECK_SAME_F64(s.free_real, -1.5e300);
    AM_CHECK_OK(am_param_set(table, &s, "memory", "4GB", "here"));
    AM_CHECK_I64(s.memory, 4000000000);
    AM_CHECK_OK(am_param_set(table, &s, "name", "first", "here"));
    AM_CHECK_OK(am_param_set(table, &s, "name", "second", "here")); /* frees the first */
    AM_CHECK_TEXT(s.name, "second");
    AM_CHECK_OK(am_param_set(table, &s, "scope", "layer", "here"));
    AM_CHECK_I64(s.scope, 2);
    AM_CHECK_OK(am_param_set(table, &s, "dtype", "bf16", "here"));
    AM_CHECK_I64(s.dtype, AM_DTYPE_BF16);
    am_json j = {0};
    am_json_object(&j, NULL);
    am_param_print_json(table, &s, &j);
    am_json_end_object(&j);
    AM_CHECK_TEXT(j.text, "{\"flag\":false,\"count\":1,\"memory\":4000000000,\"alpha\":1,"
                          "\"free_real\":-1.5e+300,\"name\":\"second\",\"absent\":null,"
                          "\"scope\":\"layer\",\"dtype\":\"BF16\"}");
    am_json_free(&j);
    am_param_free(table, &s);
}

static void refused(void)
{
    static const struct {
        const char *key, *text, *part;
    } cases[] = {
        {"flag", "1", "true or false, not `1`"},
        {"count", "9", "an integer in [1, 8], not `9`"},
        {"count", "0", "[1, 8]"},
        {"count", "3.5", "an integer"},
        {"count", "", "an integer"},
        {"count", "3 ", "an integer"},
        {"count", "99999999999999999999", "an integer"},
        {"alpha", "1.0000001", "a finite number in [0, 1]"},
        {"alpha", "-1e-300", "[0, 1]"},
        {"alpha", "nan", "a finite number"},
        {"alpha", "0x1p-1", "a finite number"},
        {"free_real", "1e999", "a finite number"},
        {"free_real", "inf", "a finite number"},
        {"free_real", "1e", "a finite number"},
        {"memory", "512", "a size such as 512MiB in [1.00 KiB"},
        {"memory", "12parsecs", "a size"},
        {"scope", "globl", "one of tensor|global|layer, not `globl`"},
        {"scope", "", "one of"},
        {"scope", "tensor|global", "one of"},
        {"dtype", "float31", "an element type"},
        {"alhpa", "1", "unknown key `alhpa`, did you mean `alpha`?"},
        {"zzzzzzzzz", "1", "unknown key `zzzzzzzzz`"},
    };
    settings s = {.count = 5, .alpha = 0.25, .memory = 7, .scope = 1};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        AM_CHECK_CODE(am_param_set(table, &s, cases[i].key, cases[i].text, "r.yml:3:9"),
                      AM_E_RECIPE);
        AM_CHECK_CONTAINS(am_error_message(), "r.yml:3:9: ");
        AM_CHECK_CONTAINS(am_error_message(), cases[i].part);
        am_error_clear();
    }
    AM_CHECK(s.count == 5 && s.alpha == 0.25 && s.memory == 7 && s.scope == 1);
    (void)am_param_set(table, &s, "zzzzzzzzz", "1", "x");
    AM_CHECK(strstr(am_error_message(), "mean") == NULL);
}

static void required(void)
{
    static const am_param two[] = {{"a", AM_PARAM_INT, 0, NULL, 0, 0, NULL, ""},
                                   {"b", AM_PARAM_INT, 0, "1", 0, 0, NULL, ""},
                                   {"c", AM_PARAM_INT, 0, NULL, 0, 0, NULL, ""},
                                   {NULL, AM_PARAM_INT, 0, NULL, 0, 0, NULL, NULL}};
    const bool none[3] = {false, false, false}, first[3] = {true, false, false};
    const bool both[3] = {true, false, true};
    AM_CHECK_CODE(am_param_require(two, none, "r.yml"), AM_E_RECIPE);
    AM_CHECK_TEXT(am_error_message(), "r.yml: missing keys `a`, `c`");
    am_error_clear();
    AM_CHECK_CODE(am_param_require(two, first, "r.yml"), AM_E_RECIPE);
    AM_CHECK_TEXT(am_error_message(), "r.yml: missing key `c`");
    am_error_clear();
    AM_CHECK_OK(am_param_require(two, both, "r.yml"));
    AM_CHECK_I64(am_param_find(two, "c"), 2);
    AM_CHECK_I64(am_param_find(two, "d"), -1);
}

static void help(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (AM_CHECK(out != NULL)) {
        am_param_help(table, out);
        AM_CHECK(fclose(out) == 0);
        AM_CHECK_CONTAINS(text, "how many (an integer in [1, 8]; default 3)\n");
        AM_CHECK_CONTAINS(text, "weight (a finite number in [0, 1]; required)\n");
        AM_CHECK_CONTAINS(text, "one of tensor|global|layer; default tensor");
        free(text);
    }
}

static void nearest_words(void)
{
    const char *const names[] = {"weight", "density", "lambda", "normalize", NULL};
    AM_CHECK_TEXT(am_nearest(names, "wieght"), "weight"); /* a swap is one step */
    AM_CHECK_TEXT(am_nearest(names, "lamda"), "lambda");
    AM_CHECK_TEXT(am_nearest(names, "normalise"), "normalize");
    AM_CHECK_TEXT(am_nearest(names, "densities"), "density"); /* 3 of 9 letters */
    AM_CHECK_TEXT(am_nearest(names, "temperature"), NULL);
    char longer[300];
    memset(longer, 'w', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    AM_CHECK_TEXT(am_nearest(names, longer), NULL);
    AM_CHECK_TEXT(am_nearest(names + 4, "x"), NULL);
}

static void sizes(void)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } good[] = {{"0", 0},
                {"65536", 65536},
                {"512MiB", 512 << 20},
                {"1.5GiB", 3 << 29},
                {"4GB", 4000000000},
                {"2 kB", 2000},
                {"1k", 1024},
                {"3TiB", INT64_C(3) << 40},
                {"9223372036854775807", INT64_MAX},
                {"512mib", 512 << 20},
                {"7B", 7}};
    static const char *const bad[] = {"",    "MiB",        "-1",   "1.5.2",
                                      "1e3", "0x10",       "8EiB", "9223372036854775808",
                                      "nan", "12 parsecs", ".5GiB"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t bytes = -1;
        AM_CHECK_OK(am_parse_bytes(good[i].text, &bytes));
        AM_CHECK_I64(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t bytes = -1;
        AM_CHECK_CODE(am_parse_bytes(bad[i], &bytes), AM_E_USAGE);
        AM_CHECK_I64(bytes, -1);
        am_error_clear();
    }
    AM_CHECK_TEXT(am_format_bytes(1023), "1023 B");
    AM_CHECK_TEXT(am_format_bytes(INT64_C(3) << 29), "1.50 GiB");
    const char *one = am_format_bytes(1), *two = am_format_bytes(2);
    AM_CHECK_TEXT(one, "1 B");
    AM_CHECK_TEXT(two, "2 B");
}

static const am_test tests[] = {
    AM_TEST(defaults), AM_TEST(accepted),      AM_TEST(refused), AM_TEST(required),
    AM_TEST(help),     AM_TEST(nearest_words), AM_TEST(sizes),
};
AM_TEST_MAIN("param", tests)
