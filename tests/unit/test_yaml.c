/* YAML: scalars as PyYAML reads them, documents, limits, errors with their place, --set, binding.
 * The right-hand sides were made with PyYAML 6.0 (tests/oracle/test_pyyaml.py compares with the
 * installed one). SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/recipe/bind.h"
#include "jobs/recipe/yaml.h"
#include "mpi/error.h"
#include "mpi/runtime.h"
#include "tests/am_test.h"

static void check_json(const char *text, const char *set, const char *expected)
{
    am_yaml *yaml = NULL;
    am_json j = {0};
    if (AM_CHECK_OK(am_yaml_parse(text, (int64_t)strlen(text), "r.yml", &yaml)) &&
        (set == NULL || AM_CHECK_OK(am_yaml_override(yaml, set)))) {
        am_node_json(am_yaml_root(yaml), NULL, &j);
        AM_CHECK_TEXT(j.text, expected);
    }
    am_json_free(&j);
    am_yaml_free(&yaml);
}

static void check_error(const char *text, const char *message)
{
    am_yaml *yaml = NULL;
    AM_CHECK_CODE(am_yaml_parse(text, (int64_t)strlen(text), "r.yml", &yaml), AM_E_RECIPE);
    AM_CHECK_CONTAINS(am_error_message(), message);
    am_error_clear();
    AM_CHECK(yaml == NULL);
    am_yaml_free(&yaml);
}

static void scalars(void)
{
    static const struct {
        const char *text, *json;
    } table[] = {
        {"yes", "true"},
        {"No", "false"},
        {"ON", "true"},
        {"off", "false"},
        {"tRue", "\"tRue\""},
        {"y", "\"y\""},
        {"~", "null"},
        {"Null", "null"},
        {"", "null"},
        {"0", "0"},
        {"007", "7"},
        {"017", "15"},
        {"0o17", "\"0o17\""},
        {"018", "\"018\""},
        {"0x1F", "31"},
        {"0xg", "\"0xg\""},
        {"0b101", "5"},
        {"0b12", "\"0b12\""},
        {"1_000", "1000"},
        {"_1", "\"_1\""},
        {"+5", "5"},
        {"-0x1F", "-31"},
        {"-017", "-15"},
        {"+-5", "\"+-5\""},
        {"1:30", "90"},
        {"1:60", "\"1:60\""},
        {"1:30:59", "5459"},
        {"-1:30", "-90"},
        {"0:30", "\"0:30\""},
        {"1:2.5", "62.5"},
        {"1e-3", "\"1e-3\""},
        {"1.5e-3", "0.0015"},
        {"1e3", "\"1e3\""},
        {"1.5e3", "\"1.5e3\""},
        {".5", "0.5"},
        {"-.5", "\"-.5\""},
        {"1_0.5", "10.5"},
        {"._5", "\"._5\""},
        {".inf", "\".inf\""},
        {"'1'", "\"1\""},
        {"\"yes\"", "\"yes\""},
        {"a b", "\"a b\""},
        {"!!str 5", "\"5\""},
        {"!!int '7'", "7"},
        {"2001-01-01", "\"2001-01-01\""},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"9223372036854775808", "\"9223372036854775808\""},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char text[128], json[128];
        (void)snprintf(text, sizeof text, "a: %s\n", table[i].text);
        (void)snprintf(json, sizeof json, "{\"a\":%s}", table[i].json);
        check_json(text, NULL, json);
    }
}

static void documents(void)
{
    check_json("", NULL, "null");
    check_json("a: [1, {b: c}]\nd:\n- x\n- y\n", NULL,
               "{\"a\":[1,{\"b\":\"c\"}],\"d\":[\"x\",\"y\"]}");
    check_json("a: &x [1, 2]\nb: *x\n", NULL, "{\"a\":[1,2],\"b\":[1,2]}");
    check_json("d: &d {a: 1, b: 2}\nc:\n  b: 3\n  <<: *d\n", NULL,
               "{\"d\":{\"a\":1,\"b\":2},\"c\":{\"b\":3,\"a\":1}}");
    check_json("d: &d {a: 1}\ne: &e {a: 2, z: 3}\nc:\n  <<: [*d, *e]\n", NULL,
               "{\"d\":{\"a\":1},\"e\":{\"a\":2,\"z\":3},\"c\":{\"a\":1,\"z\":3}}");
    check_json("%YAML 1.1\n---\na: 1\n...\n", NULL, "{\"a\":1}");
}

static void bad_documents(void)
{
    check_error("a: 1\nb:\n  c: 1\n  c: 2\n", "r.yml:4:3: duplicate key 'c' (first at line 3)");
    check_error("a: 1\n---\nb: 2\n", "r.yml:2:1: more than one document");
    check_error("a: !!python/object:os.system x\n", "r.yml:1:4: tag not allowed");
    check_error("a: !mine [1]\n", "r.yml:1:4: tag not allowed: !mine");
    check_error("a: !!int x\n", "r.yml:1:4: value does not fit its tag !!int");
    check_error("a: *x\n", "r.yml:1:4: undefined alias *x");
    check_error("a: &x [1, *x]\n", "r.yml:1:11: an alias inside its own anchor");
    check_error("a: &x 1\nb: &x 2\n", "r.yml:2:4: duplicate anchor");
    check_error("<<: 3\n", "r.yml:1:1: a merge key (<<) needs a map");
    check_error("? [1]\n: 2\n", "a key must be a scalar");
    check_error("a:\n\t- 1\n", "r.yml:2:1: ");
    check_error("a: [1, 2\n", "r.yml:2:1: ");
    check_error("a: \"x\\0y\"\n", "r.yml:1:4: a value with a NUL byte");
    check_error("a: \001\n", "control characters are not allowed");
    check_error("a: [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\n", "nested too deeply");
    check_error("a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
                "more than 100000 values after expanding aliases");
    am_yaml *yaml = NULL;
    char *large = malloc(AM_YAML_MAX_BYTES + 1);
    if (AM_CHECK(large != NULL)) {
        memset(large, ' ', AM_YAML_MAX_BYTES + 1);
        AM_CHECK_OK(am_yaml_parse(large, AM_YAML_MAX_BYTES, "r.yml", &yaml));
        am_yaml_free(&yaml);
        AM_CHECK_CODE(am_yaml_parse(large, AM_YAML_MAX_BYTES + 1, "r.yml", &yaml), AM_E_RECIPE);
        AM_CHECK_CONTAINS(am_error_message(), "larger than 1 MiB");
        am_error_clear();
    }
    free(large);
}

static void overrides(void)
{
    const char *text = "x: [1, 2]\nn:\nk: word\n";
    check_json(text, "a.b=1", "{\"x\":[1,2],\"n\":null,\"k\":\"word\",\"a\":{\"b\":1}}");
    check_json(text, "x.0=yes", "{\"x\":[true,2],\"n\":null,\"k\":\"word\"}");
    check_json(text, "n.z=[1, {q: v}]",
               "{\"x\":[1,2],\"n\":{\"z\":[1,{\"q\":\"v\"}]},\"k\":\"word\"}");
    check_json(text, "k=", "{\"x\":[1,2],\"n\":null,\"k\":null}");
    static const struct {
        const char *set, *message;
    } bad[] = {{"x.5=1", "--set x.5: '5' must be an index from 0 to 1"},
               {"x.-1=1", "--set x.-1: '-1' must be an index"},
               {"k.z=1", "--set k.z: 'z' is inside a value that is no map or list"},
               {"=1", "write it as KEY=VALUE"},
               {"a..b=1", "--set a..b: empty key"},
               {"a=[1", "--set a: "}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        am_yaml *yaml = NULL;
        AM_CHECK_OK(am_yaml_parse(text, (int64_t)strlen(text), "r.yml", &yaml));
        AM_CHECK_CODE(am_yaml_override(yaml, bad[i].set), AM_E_RECIPE);
        AM_CHECK_CONTAINS(am_error_message(), bad[i].message);
        am_error_clear();
        am_yaml_free(&yaml);
    }
}

static void typed_values(void)
{
    const char *text = "i: 0x10\nr: 1e-3\nm: -.5\nb: off\nt: word\nbad: 1e\ninf: .inf\nl: [1]\n";
    am_yaml *yaml = NULL;
    int64_t i = 0;
    double r = 0;
    bool b = true;
    const char *t = NULL;
    AM_CHECK_OK(am_yaml_parse(text, (int64_t)strlen(text), "r.yml", &yaml));
    const am_node *root = am_yaml_root(yaml);
    AM_CHECK_OK(am_node_int(am_node_find(root, "i"), "i", 0, 100, &i));
    AM_CHECK_I64(i, 16);
    AM_CHECK_OK(am_node_real(am_node_find(root, "r"), "r", &r));
    AM_CHECK_SAME_F64(r, 1e-3);
    AM_CHECK_OK(am_node_real(am_node_find(root, "m"), "m", &r));
    AM_CHECK_SAME_F64(r, -0.5);
    AM_CHECK_OK(am_node_bool(am_node_find(root, "b"), "b", &b));
    AM_CHECK(!b);
    AM_CHECK_OK(am_node_text(am_node_find(root, "t"), "t", &t));
    AM_CHECK_TEXT(t, "word");
    static const struct {
        const char *key, *message;
    } bad[] = {{"t", "r.yml:5:4: v must be a number, not text 'word'"},
               {"bad", "r.yml:6:6: v must be a number, not text '1e'"},
               {"inf", "r.yml:7:6: v must be finite, not .inf"},
               {"l", "r.yml:8:4: v must be a number, not a list"},
               {"absent", "v is missing: it must be a number"}};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        AM_CHECK_CODE(am_node_real(am_node_find(root, bad[k].key), "v", &r), AM_E_RECIPE);
        AM_CHECK_CONTAINS(am_error_message(), bad[k].message);
        am_error_clear();
    }
    AM_CHECK_CODE(am_node_int(am_node_find(root, "i"), "i", 0, 10, &i), AM_E_RECIPE);
    AM_CHECK_CONTAINS(am_error_message(), "i must be from 0 to 10, not 0x10");
    am_error_clear();
    am_yaml_free(&yaml);
}

typedef struct bound {
    int64_t epochs;
    double lr;
    char *name;
    bool quick;
} bound;

static const am_param bound_table[] = {
    {"epochs", AM_PARAM_INT, offsetof(bound, epochs), NULL, 1, 100, NULL, "passes"},
    {"lr", AM_PARAM_REAL, offsetof(bound, lr), "0.1", 0, 1, NULL, "rate"},
    {"name", AM_PARAM_STRING, offsetof(bound, name), "", 0, 0, NULL, "name"},
    {"quick", AM_PARAM_BOOL, offsetof(bound, quick), "false", 0, 0, NULL, "quick"},
    {0}};

static int bind(const char *text, bound *object)
{
    static const char *const others[] = {"tasks", NULL};
    am_yaml *yaml = NULL;
    int rc = am_yaml_parse(text, (int64_t)strlen(text), "r.yml", &yaml);
    AM_KEEP(am_recipe_bind(am_yaml_root(yaml), bound_table, others, "train", object));
    am_yaml_free(&yaml);
    return rc;
}

static void binding(void)
{
    bound o = {0};
    AM_CHECK_OK(bind("epochs: 010\nlr: 1e-3\nquick: yes\nname: on\ntasks: [a]\n", &o));
    AM_CHECK_I64(o.epochs, 8);
    AM_CHECK_SAME_F64(o.lr, 1e-3);
    AM_CHECK_TEXT(o.name, "on");
    AM_CHECK(o.quick);
    am_param_free(bound_table, &o);
    AM_CHECK_OK(bind("epochs: 3\nlr:\n", &o)); /* null leaves the default */
    AM_CHECK_SAME_F64(o.lr, 0.1);
    am_param_free(bound_table, &o);
    static const struct {
        const char *text, *message;
    } bad[] = {{"epochs: 3\nepoch: 4\nlrr: 1\n", "r.yml:2:1: unknown key 'epoch' in train; did you "
                                                 "mean 'epochs'?"},
               {"epochs: 3\nepoch: 4\nlrr: 1\n", "r.yml:3:1: unknown key 'lrr' in train; did you "
                                                 "mean 'lr'?"},
               {"lr: 0.5\n", "epochs"},
               {"epochs: 0\n", "r.yml:1:9"},
               {"epochs: word\n", "r.yml:1:9"},
               {"epochs: [1]\n", "r.yml:1:9: 'epochs' must be a single value, not a list"},
               {"[1]\n", "r.yml:1:1: train must be a map, not a list"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        AM_CHECK_CODE(bind(bad[i].text, &o), AM_E_RECIPE);
        AM_CHECK_CONTAINS(am_error_message(), bad[i].message);
        am_error_clear();
        am_param_free(bound_table, &o);
    }
}

static void reading_is_shared_all(void)
{
    am_yaml *yaml = NULL;
    const char *path = am_test_path("recipe.yml");
    if (am_world_rank() == 0) {
        FILE *file = fopen(path, "w");
        AM_CHECK(file != NULL && fputs("a: 1\n", file) >= 0 && fclose(file) == 0);
    }
    AM_CHECK_OK(am_yaml_read_all(am_world(), path, &yaml));
    AM_CHECK(yaml != NULL && am_node_find(am_yaml_root(yaml), "a") != NULL);
    am_yaml_free(&yaml);
    AM_CHECK_CODE(am_yaml_read_all(am_world(), am_test_path("absent.yml"), &yaml), AM_E_NOINPUT);
    AM_CHECK_CONTAINS(am_error_message(), "absent.yml: cannot open the recipe");
    am_error_clear();
    AM_CHECK_CODE(am_yaml_read_all(am_world(), am_test_path("."), &yaml), AM_E_NOINPUT);
    am_error_clear();
}

static const am_test tests[] = {
    AM_TEST(scalars),      AM_TEST(documents), AM_TEST(bad_documents),        AM_TEST(overrides),
    AM_TEST(typed_values), AM_TEST(binding),   AM_TEST(reading_is_shared_all)};
AM_TEST_MAIN("yaml", tests)
