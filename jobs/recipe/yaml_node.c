/* Reading nodes of a YAML tree, changing them by --set, and writing them as JSON.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/recipe/yaml_internal.h"
#include "mpi/error.h"

enum { AM_WHERE_BYTES = 1024, AM_MAX_SET_KEY = 256 };

bool am_node_is_null(const am_node *node)
{
    return node == NULL || (node->kind == AM_NODE_SCALAR && node->scalar == AM_SCALAR_NULL);
}

const am_node *am_node_find(const am_node *map, const char *key)
{
    if (map == NULL || map->kind != AM_NODE_MAP) {
        return NULL;
    }
    for (int64_t i = 0; i < map->n; i++) {
        if (strcmp(map->key[i]->text, key) == 0) {
            return am_node_is_null(map->item[i]) ? NULL : map->item[i];
        }
    }
    return NULL;
}

const char *am_node_where(const am_node *node)
{
    static _Thread_local char buffers[4][AM_WHERE_BYTES];
    static _Thread_local unsigned turn;
    char *buffer = buffers[turn++ % 4];
    if (node == NULL) {
        snprintf(buffer, AM_WHERE_BYTES, "recipe");
    } else if (node->line == 0) {
        snprintf(buffer, AM_WHERE_BYTES, "%s", node->origin);
    } else {
        snprintf(buffer, AM_WHERE_BYTES, "%s:%d:%d", node->origin, node->line, node->column);
    }
    return buffer;
}

int am_node_fail(const am_node *node, const char *format, ...)
{
    char text[AM_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return am_fail(AM_E_RECIPE, "%s: %s", am_node_where(node), text);
}

static const char *describe(const am_node *node)
{
    static const char *const names[] = {"null", "a bool", "an integer", "a number", "text"};
    switch (node->kind) {
    case AM_NODE_LIST:
        return "a list";
    case AM_NODE_MAP:
        return "a map";
    case AM_NODE_SCALAR:
        return names[node->scalar];
    }
    return "something else";
}

static int fail_type(const am_node *node, const char *what, const char *wanted)
{
    if (node == NULL) {
        return am_fail(AM_E_RECIPE, "%s is missing: it must be %s", what, wanted);
    }
    if (node->kind == AM_NODE_SCALAR && node->scalar != AM_SCALAR_NULL) {
        return am_node_fail(node, "%s must be %s, not %s '%.80s'", what, wanted, describe(node),
                            node->text);
    }
    return am_node_fail(node, "%s must be %s, not %s", what, wanted, describe(node));
}

int am_node_map(const am_node *node, const char *what)
{
    return node != NULL && node->kind == AM_NODE_MAP ? 0 : fail_type(node, what, "a map");
}

int am_node_list(const am_node *node, const char *what)
{
    return node != NULL && node->kind == AM_NODE_LIST ? 0 : fail_type(node, what, "a list");
}

int am_node_text(const am_node *node, const char *what, const char **text)
{
    if (am_node_is_null(node) || node->kind != AM_NODE_SCALAR) {
        return fail_type(node, what, "text");
    }
    *text = node->text;
    return 0;
}

int am_node_bool(const am_node *node, const char *what, bool *value)
{
    if (node == NULL || node->kind != AM_NODE_SCALAR || node->scalar != AM_SCALAR_BOOL) {
        return fail_type(node, what, "true or false");
    }
    *value = node->boolean;
    return 0;
}

int am_node_int(const am_node *node, const char *what, int64_t low, int64_t high, int64_t *value)
{
    if (node == NULL || node->kind != AM_NODE_SCALAR || node->scalar != AM_SCALAR_INT) {
        return fail_type(node, what, "an integer");
    }
    if (node->is_huge || node->integer < low || node->integer > high) {
        return am_node_fail(node, "%s must be from %lld to %lld, not %s", what, (long long)low,
                            (long long)high, node->text);
    }
    *value = node->integer;
    return 0;
}

/* Numbers that PyYAML leaves text: 1e-3, -.5, 1e5. Nothing else that strtod would take. */
static bool parse_number(const am_node *node, double *value)
{
    if (node == NULL || node->kind != AM_NODE_SCALAR) {
        return false;
    }
    if (node->scalar == AM_SCALAR_INT || node->scalar == AM_SCALAR_REAL) {
        *value = node->real;
        return true;
    }
    if (node->scalar != AM_SCALAR_TEXT || node->text[0] == '\0' ||
        strspn(node->text, "0123456789+-.eE") != strlen(node->text)) {
        return false;
    }
    char *end = NULL;
    *value = strtod(node->text, &end);
    return *end == '\0';
}

int am_node_real(const am_node *node, const char *what, double *value)
{
    if (!parse_number(node, value)) {
        return fail_type(node, what, "a number");
    }
    return isfinite(*value) ? 0 : am_node_fail(node, "%s must be finite, not %s", what, node->text);
}

bool am_node_is_number(const am_node *node)
{
    double value = 0;
    return parse_number(node, &value) && isfinite(value);
}

void am_node_json(const am_node *node, const char *key, am_json *out)
{
    if (node->kind == AM_NODE_MAP) {
        am_json_object(out, key);
        for (int64_t i = 0; i < node->n; i++) {
            am_node_json(node->item[i], node->key[i]->text, out);
        }
        am_json_end_object(out);
    } else if (node->kind == AM_NODE_LIST) {
        am_json_array(out, key);
        for (int64_t i = 0; i < node->n; i++) {
            am_node_json(node->item[i], NULL, out);
        }
        am_json_end_array(out);
    } else if (node->scalar == AM_SCALAR_NULL) {
        am_json_string(out, key, NULL);
    } else if (node->scalar == AM_SCALAR_BOOL) {
        am_json_bool(out, key, node->boolean);
    } else if (node->scalar == AM_SCALAR_INT && !node->is_huge) {
        am_json_int(out, key, node->integer);
    } else if (node->scalar == AM_SCALAR_REAL && isfinite(node->real)) {
        am_json_real(out, key, node->real);
    } else {
        am_json_string(out, key, node->text);
    }
}

/* ---- --set ---- */

static int64_t find_slot(const am_node *parent, const char *word)
{
    if (parent->kind == AM_NODE_LIST) {
        char *end = NULL;
        errno = 0;
        long long index = strtoll(word, &end, 10);
        bool is_index = *word >= '0' && *word <= '9' && *end == '\0' && errno == 0;
        return is_index && index < parent->n ? index : -1;
    }
    for (int64_t i = 0; i < parent->n; i++) {
        if (strcmp(parent->key[i]->text, word) == 0) {
            return i;
        }
    }
    return -1;
}

/* The slot of `word` in `parent`, made in a map when it is missing. */
static int make_slot(am_yaml *yaml, am_node *parent, const char *word, const char *origin,
                     am_node ***slot)
{
    if (parent->kind == AM_NODE_SCALAR) {
        return am_fail(AM_E_RECIPE, "%s: '%s' is inside a value that is no map or list", origin,
                       word);
    }
    int64_t at = find_slot(parent, word);
    if (at < 0 && parent->kind == AM_NODE_LIST) {
        return am_fail(AM_E_RECIPE, "%s: '%s' must be an index from 0 to %lld", origin, word,
                       (long long)parent->n - 1);
    }
    int rc = 0;
    if (at < 0) {
        am_node *key = NULL, *value = NULL;
        AM_KEEP(am_yaml_node(yaml, AM_NODE_SCALAR, origin, 0, 0, &key));
        AM_KEEP(am_yaml_node(yaml, AM_NODE_SCALAR, origin, 0, 0, &value));
        if (rc == 0) {
            key->scalar = AM_SCALAR_TEXT;
            key->text = am_yaml_keep(yaml, word, strlen(word));
            rc = key->text != NULL ? 0 : AM_E_NOMEM;
        }
        AM_KEEP(am_yaml_append(parent, key, value));
        at = parent->n - 1;
    }
    if (rc == 0) {
        *slot = &parent->item[at];
    }
    return rc;
}

/* Walk `path` (changed in place: dots become ends) to its slot. */
static int find_path(am_yaml *yaml, char *path, const char *origin, am_node ***slot)
{
    *slot = &yaml->root;
    while (path != NULL) {
        char *dot = strchr(path, '.');
        if (dot != NULL) {
            *dot = '\0';
        }
        if (*path == '\0') {
            return am_fail(AM_E_RECIPE, "%s: empty key", origin);
        }
        int rc = 0;
        if (am_node_is_null(**slot)) {
            rc = am_yaml_node(yaml, AM_NODE_MAP, origin, 0, 0, *slot);
        }
        AM_KEEP(make_slot(yaml, **slot, path, origin, slot));
        if (rc != 0) {
            return rc;
        }
        path = dot != NULL ? dot + 1 : NULL;
    }
    return 0;
}

int am_yaml_override(am_yaml *yaml, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    char path[AM_MAX_SET_KEY], label[AM_MAX_SET_KEY + 8];
    if (equals == NULL || equals == assignment || equals - assignment >= AM_MAX_SET_KEY) {
        return am_fail(AM_E_RECIPE, "--set %.200s: write it as KEY=VALUE", assignment);
    }
    snprintf(path, sizeof path, "%.*s", (int)(equals - assignment), assignment);
    snprintf(label, sizeof label, "--set %s", path);
    const char *origin = am_yaml_keep(yaml, label, strlen(label));
    if (origin == NULL) {
        return AM_E_NOMEM;
    }
    am_node **slot = NULL, *value = NULL;
    int rc =
        am_yaml_parse_into(yaml, equals + 1, (int64_t)strlen(equals + 1), origin, true, &value);
    AM_KEEP(find_path(yaml, path, origin, &slot));
    if (rc == 0) {
        *slot = value;
    }
    return rc;
}

int am_yaml_override_each(am_yaml *yaml, int n, char *const *assignments)
{
    int rc = 0;
    for (int i = 0; i < n; i++) {
        AM_KEEP(am_yaml_override(yaml, assignments[i]));
    }
    return rc;
}
