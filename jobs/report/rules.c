/* Checks of JSON members: see rules.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/rules.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "mpi/error.h"

enum { AT = 256, KEY = 64 };

static const char *kind_of(const json_t *value)
{
    static const char *const name[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",  [JSON_STRING] = "a text",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null"};
    return value == NULL ? "missing" : name[json_typeof(value)];
}

static int check_value(const am_rule *rule, const json_t *value, const char *where, const char *at)
{
    const char *wanted = "a number";
    bool is_right = json_is_number(value), is_required = false;
    switch (rule->kind) {
    case AM_RULE_NUMBER:
        break;
    case AM_RULE_NAME:
        is_required = true; /* fall through */
    case AM_RULE_TEXT:
        wanted = "a text";
        is_right = json_is_string(value);
        break;
    case AM_RULE_ROWS:
        is_required = true; /* fall through */
    case AM_RULE_LIST:
        wanted = "a list";
        is_right = json_is_array(value);
        break;
    case AM_RULE_SECTION:
        is_required = true; /* fall through */
    case AM_RULE_OBJECT:
        wanted = "an object";
        is_right = json_is_object(value);
        break;
    }
    if (is_right || (!is_required && (value == NULL || json_is_null(value)))) {
        return 0;
    }
    return am_fail(AM_E_DATA, "%s: %s is %s, not %s: the file is damaged", where, at,
                   kind_of(value), wanted);
}

static int walk(const am_rule *rule, const char *path, const json_t *value, const char *where,
                const char *at);

/* Every item of the list `value`, if it is one; its own rule tells if it is not. */
static int walk_items(const am_rule *rule, const char *path, const json_t *value, const char *where,
                      const char *at)
{
    char deeper[AT];
    int rc = 0;
    for (size_t i = 0; i < json_array_size(value) && rc == 0; i++) {
        snprintf(deeper, sizeof deeper, "%s[%zu]", at, i);
        rc = walk(rule, path, json_array_get(value, i), where, deeper);
    }
    return rc;
}

static int walk(const am_rule *rule, const char *path, const json_t *value, const char *where,
                const char *at)
{
    char deeper[AT], key[KEY];
    if (strncmp(path, "[]", 2) == 0) {
        return walk_items(rule, path + 2, value, where, at);
    }
    if (*path == '\0') {
        return check_value(rule, value, where, at);
    }
    path += *path == '.';
    const size_t length = strcspn(path, ".[");
    AM_ASSERT(length < sizeof key);
    if (!json_is_object(value)) {
        return value == NULL || json_is_null(value)
                   ? 0
                   : am_fail(AM_E_DATA, "%s: %s is %s, not an object: the file is damaged", where,
                             at, kind_of(value));
    }
    memcpy(key, path, length);
    key[length] = '\0';
    snprintf(deeper, sizeof deeper, "%s%s%s", at, *at != '\0' ? "." : "", key);
    return walk(rule, path + length, json_object_get(value, key), where, deeper);
}

int am_rules_check(const am_rule *rules, const json_t *root, const char *where)
{
    int rc = 0;
    for (int i = 0; rules[i].path != NULL && rc == 0; i++) {
        rc = walk(&rules[i], rules[i].path, root, where, "");
    }
    return rc;
}
