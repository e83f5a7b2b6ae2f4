/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/commit/identity.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/commit/provenance.h"
#include "io/file.h"
#include "mpi/error.h"
#include "mpi/jsonw.h"

enum { LISTED = 4, SHOWN = 120 };

static int write_input(am_json *j, const char *path)
{
    am_input_facts facts;
    int rc = am_input_facts_read(path, &facts);
    if (rc != 0) {
        return rc;
    }
    am_json_object(j, NULL);
    am_input_facts_write(&facts, path, j);
    if (!facts.has_content) {
        am_json_int(j, "modified_ns", facts.modified_ns);
    }
    am_json_end_object(j);
    return 0;
}

int am_identity_make(const char *job, const char *recipe, bool is_json, const char *const *inputs,
                     char **out)
{
    int rc = 0;
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "allmerge", AM_VERSION);
    am_json_string(&j, "job", job);
    if (is_json) {
        am_json_raw(&j, "recipe", recipe);
    } else {
        am_json_string(&j, "recipe", recipe);
    }
    am_json_array(&j, "inputs");
    for (int64_t i = 0; rc == 0 && inputs != NULL && inputs[i] != NULL; i++) {
        rc = write_input(&j, inputs[i]);
    }
    am_json_end_array(&j);
    am_json_end_object(&j);
    AM_KEEP(am_json_finish(&j));
    *out = rc == 0 ? am_text("%s", j.text) : NULL;
    AM_KEEP(*out == NULL ? AM_E_NOMEM : 0);
    am_json_free(&j);
    return rc;
}

/* ---- comparison ---- */

typedef struct report {
    char *text;
    int64_t bytes, at;
    int count;
} report;

static void note(report *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(report *r, const char *format, ...)
{
    if (r->count++ >= LISTED) {
        return;
    }
    va_list args;
    va_start(args, format);
    const char *comma = r->at > 0 ? "; " : "";
    int n = snprintf(r->text + r->at, (size_t)(r->bytes - r->at), "%s", comma);
    r->at = r->at + n < r->bytes ? r->at + n : r->bytes - 1;
    n = vsnprintf(r->text + r->at, (size_t)(r->bytes - r->at), format, args);
    r->at = r->at + n < r->bytes ? r->at + n : r->bytes - 1;
    va_end(args);
}

/* A value as short text. */
static const char *shown(const json_t *value, char *room)
{
    char *text = value != NULL
                     ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(12))
                     : NULL;
    snprintf(room, SHOWN, "%s", text != NULL ? text : "absent");
    free(text);
    return room;
}

/* The end of the line at `text`. */
static size_t line_length(const char *text)
{
    return strcspn(text, "\n");
}

static void compare_lines(report *r, const char *then, const char *now)
{
    while (*then != '\0' || *now != '\0') {
        const size_t a = line_length(then), b = line_length(now);
        if (a != b || strncmp(then, now, a) != 0) {
            const size_t skip_a = strspn(then, " "), skip_b = strspn(now, " ");
            note(r, "'%.*s' is now '%.*s'", (int)(a - skip_a < SHOWN ? a - skip_a : SHOWN),
                 then + skip_a, (int)(b - skip_b < SHOWN ? b - skip_b : SHOWN), now + skip_b);
        }
        then += a + (then[a] == '\n');
        now += b + (now[b] == '\n');
    }
}

static void compare(report *r, const char *key, const json_t *then, const json_t *now);

static void compare_members(report *r, const char *key, const json_t *then, const json_t *now)
{
    char path[512];
    const char *name;
    json_t *value;
    const char *dot = key[0] != '\0' ? "." : "";
    json_object_foreach((json_t *)(uintptr_t)then, name, value)
    {
        snprintf(path, sizeof path, "%.400s%s%.100s", key, dot, name);
        compare(r, path, value, json_object_get(now, name));
    }
    json_object_foreach((json_t *)(uintptr_t)now, name, value)
    {
        if (json_object_get(then, name) == NULL) {
            snprintf(path, sizeof path, "%.400s%s%.100s", key, dot, name);
            compare(r, path, NULL, value);
        }
    }
}

static void compare_elements(report *r, const char *key, const json_t *then, const json_t *now)
{
    char path[512];
    const size_t a = json_array_size(then), b = json_array_size(now);
    for (size_t i = 0; i < a || i < b; i++) {
        snprintf(path, sizeof path, "%.400s.%zu", key, i);
        compare(r, path, json_array_get(then, i), json_array_get(now, i));
    }
}

static void compare(report *r, const char *key, const json_t *then, const json_t *now)
{
    char was[SHOWN], is[SHOWN];
    if (json_is_object(then) && json_is_object(now)) {
        compare_members(r, key, then, now);
    } else if (json_is_array(then) && json_is_array(now)) {
        compare_elements(r, key, then, now);
    } else if (!json_equal(then, now)) {
        const char *a = json_string_value(then), *b = json_string_value(now);
        if (a != NULL && b != NULL && (strchr(a, '\n') != NULL || strchr(b, '\n') != NULL)) {
            compare_lines(r, a, b);
        } else {
            note(r, "%s was %s, is %s", key, shown(then, was), shown(now, is));
        }
    }
}

static bool has_same(const json_t *x, const json_t *y, const char *key)
{
    const json_t *a = json_object_get(x, key), *b = json_object_get(y, key);
    return (a == NULL && b == NULL) || json_equal(a, b) != 0;
}

static void compare_inputs(report *r, const json_t *then, const json_t *now)
{
    const size_t a = json_array_size(then), b = json_array_size(now);
    for (size_t i = 0; i < a || i < b; i++) {
        const json_t *x = json_array_get(then, i), *y = json_array_get(now, i);
        const char *was = json_string_value(json_object_get(x, "path"));
        const char *is = json_string_value(json_object_get(y, "path"));
        was = was != NULL ? was : "absent";
        is = is != NULL ? is : "absent";
        if (strcmp(was, is) != 0) {
            note(r, "input %zu was %s, is %s", i + 1, was, is);
        } else if (!json_equal(x, y)) {
            const bool is_resized = !has_same(x, y, "bytes");
            const bool is_other = !has_same(x, y, "sample_xxh3") || !has_same(x, y, "content_xxh3");
            note(r, "input %s has changed (%s)", was,
                 is_resized ? "another size"
                 : is_other ? "other content"
                            : "written since");
        }
    }
}

int am_identity_compare(const char *then, const char *now, char *what, int64_t bytes)
{
    report r = {.text = what, .bytes = bytes};
    json_error_t error;
    what[0] = '\0';
    json_t *a = json_loads(then, JSON_REJECT_DUPLICATES, &error);
    json_t *b = json_loads(now, JSON_REJECT_DUPLICATES, &error);
    if (a == NULL || b == NULL) {
        json_decref(a);
        json_decref(b);
        return am_fail(AM_E_DATA, "cannot read what the job is: %s", error.text);
    }
    static const char *const keys[] = {"allmerge", "job"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        compare(&r, keys[i], json_object_get(a, keys[i]), json_object_get(b, keys[i]));
    }
    compare(&r, "", json_object_get(a, "recipe"), json_object_get(b, "recipe"));
    compare_inputs(&r, json_object_get(a, "inputs"), json_object_get(b, "inputs"));
    if (r.count > LISTED) {
        const int extra = r.count - LISTED;
        r.count = 0;
        note(&r, "and %d more", extra);
        r.count = LISTED + extra;
    }
    json_decref(a);
    json_decref(b);
    return r.count;
}
