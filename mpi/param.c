/* Typed parameter tables: set, default, check, print. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/param.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "mpi/error.h"
#include "mpi/tensor.h"

static void *member(const am_param *p, void *object)
{
    return (char *)object + p->offset;
}

static const void *const_member(const am_param *p, const void *object)
{
    return (const char *)object + p->offset;
}

int am_param_find(const am_param *table, const char *key)
{
    for (int i = 0; table[i].key != NULL; i++) {
        if (strcmp(table[i].key, key) == 0) {
            return i;
        }
    }
    return -1;
}

/* ---- words ---- */

enum { WORD = 64 };

/* Damerau-Levenshtein distance (neighbours may swap) of words shorter than WORD. */
static int word_distance(const char *a, const char *b)
{
    int rows[3][WORD + 1], n = (int)strlen(a), m = (int)strlen(b);
    int *before = rows[0], *above = rows[1], *here = rows[2];
    for (int j = 0; j <= m; j++) {
        above[j] = j;
        before[j] = j;
    }
    for (int i = 1; i <= n; i++) {
        here[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = here[j - 1] + 1 < best ? here[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best) {
                best = before[j - 2] + 1;
            }
            here[j] = best;
        }
        int *spare = before;
        before = above;
        above = here;
        here = spare;
    }
    return above[m];
}

/* The running best of a search for the nearest word. */
typedef struct nearest {
    const char *word, *found;
    int distance, limit;
} nearest;

static nearest nearest_start(const char *word)
{
    int n = (int)strnlen(word, WORD);
    return (nearest){.word = n < WORD ? word : NULL, .limit = n / 3 > 2 ? n / 3 : 2};
}

static void nearest_try(nearest *best, const char *name)
{
    if (best->word == NULL || strlen(name) >= WORD) {
        return;
    }
    int distance = word_distance(best->word, name);
    if (distance <= best->limit && (best->found == NULL || distance < best->distance)) {
        best->found = name;
        best->distance = distance;
    }
}

const char *am_nearest(const char *const *names, const char *word)
{
    nearest best = nearest_start(word);
    for (; *names != NULL; names++) {
        nearest_try(&best, *names);
    }
    return best.found;
}

static int fail_unknown_key(const am_param *table, const char *key, const char *where)
{
    nearest best = nearest_start(key);
    for (const am_param *p = table; p->key != NULL; p++) {
        nearest_try(&best, p->key);
    }
    return best.found != NULL ? am_fail(AM_E_RECIPE, "%s: unknown key `%s`, did you mean `%s`?",
                                        where, key, best.found)
                              : am_fail(AM_E_RECIPE, "%s: unknown key `%s`", where, key);
}

/* ---- sizes ---- */

static const struct {
    const char *name;
    int64_t bytes;
} byte_units[] = {{"", 1},
                  {"B", 1},
                  {"K", INT64_C(1) << 10},
                  {"KiB", INT64_C(1) << 10},
                  {"kB", 1000},
                  {"M", INT64_C(1) << 20},
                  {"MiB", INT64_C(1) << 20},
                  {"MB", 1000000},
                  {"G", INT64_C(1) << 30},
                  {"GiB", INT64_C(1) << 30},
                  {"GB", 1000000000},
                  {"T", INT64_C(1) << 40},
                  {"TiB", INT64_C(1) << 40},
                  {"TB", 1000000000000}};

static bool parse_size(const char *text, int64_t *bytes)
{
    size_t digits = strspn(text, "0123456789"), length = digits;
    if (text[length] == '.') {
        length += 1 + strspn(text + length + 1, "0123456789");
    }
    const char *unit = text + length + strspn(text + length, " ");
    for (size_t i = 0; digits > 0 && i < sizeof byte_units / sizeof byte_units[0]; i++) {
        long double value = strtold(text, NULL) * (long double)byte_units[i].bytes;
        if (strcasecmp(unit, byte_units[i].name) == 0 && value < 0x1p63L) {
            *bytes = (int64_t)value;
            return true;
        }
    }
    return false;
}

int am_parse_bytes(const char *text, int64_t *bytes)
{
    return parse_size(text, bytes)
               ? 0
               : am_fail(AM_E_USAGE, "`%s` is not a size: write 65536, 512MiB, 1.5GiB or 4GB",
                         text);
}

const char *am_format_bytes(int64_t bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    static _Thread_local char texts[4][32];
    static _Thread_local unsigned turn = 0;
    char *text = texts[turn++ % 4];
    double value = (double)bytes;
    int unit = 0;
    while (fabs(value) >= 1024 && unit < 6) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(text, sizeof texts[0], unit == 0 ? "%.0f %s" : "%.2f %s", value, names[unit]);
    return text;
}

/* ---- values ---- */

static bool is_bounded(const am_param *p)
{
    return p->low != 0 || p->high != 0;
}

/* "an integer in [1, 8]" and the like: what the parameter takes. */
static const char *describe_type(const am_param *p)
{
    static _Thread_local char text[512];
    static const char *const names[] = {[AM_PARAM_BOOL] = "true or false",
                                        [AM_PARAM_INT] = "an integer",
                                        [AM_PARAM_REAL] = "a finite number",
                                        [AM_PARAM_BYTES] = "a size such as 512MiB",
                                        [AM_PARAM_STRING] = "a text",
                                        [AM_PARAM_CHOICE] = "one of ",
                                        [AM_PARAM_DTYPE] =
                                            "an element type such as float32, float16 or bfloat16"};
    if (p->type == AM_PARAM_CHOICE) {
        (void)snprintf(text, sizeof text, "%s%s", names[p->type], p->choices);
    } else if (is_bounded(p) && p->type == AM_PARAM_BYTES) {
        (void)snprintf(text, sizeof text, "%s in [%s, %s]", names[p->type],
                       am_format_bytes((int64_t)p->low),
                       p->high < 0x1p63 ? am_format_bytes((int64_t)p->high) : "unlimited");
    } else if (is_bounded(p) && (p->type == AM_PARAM_INT || p->type == AM_PARAM_REAL)) {
        (void)snprintf(text, sizeof text, "%s in [%.15g, %.15g]", names[p->type], p->low, p->high);
    } else {
        (void)snprintf(text, sizeof text, "%s", names[p->type]);
    }
    return text;
}

static int fail_value(const am_param *p, const char *text, const char *where)
{
    return am_fail(AM_E_RECIPE, "%s: key `%s` takes %s, not `%s`", where, p->key, describe_type(p),
                   text);
}

/* false yes no ... as YAML 1.1; case does not matter. */
static bool parse_bool(const char *text, bool *value)
{
    static const char *const words[] = {"false", "no", "off", "true", "yes", "on"};
    for (int i = 0; i < 6; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *value = i >= 3;
            return true;
        }
    }
    return false;
}

static bool parse_int(const char *text, int64_t *value)
{
    const char *digits = text + (*text == '-' || *text == '+');
    bool is_hex = digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X');
    if (*digits < '0' || *digits > '9') {
        return false;
    }
    char *end = NULL;
    errno = 0;
    *value = strtoll(text, &end, is_hex ? 16 : 10);
    return errno == 0 && end != text && *end == '\0';
}

static bool parse_real(const char *text, double *value)
{
    char *end = NULL;
    if (strspn(text, "+-.0123456789eE") != strlen(text)) {
        return false; /* strtod would take hexadecimal, "inf", "nan" and leading blanks */
    }
    *value = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*value);
}

static bool parse_choice(const char *choices, const char *text, int *value)
{
    size_t n = strlen(text);
    int index = 0;
    for (const char *at = choices; *at != '\0'; index++) {
        size_t length = strcspn(at, "|");
        if (length == n && strncmp(at, text, n) == 0) {
            *value = index;
            return true;
        }
        at += length + (at[length] == '|');
    }
    return false;
}

static bool in_range(const am_param *p, double value)
{
    return !is_bounded(p) || (value >= p->low && value <= p->high);
}

/* Parse and store; false if the text does not fit. *rc: AM_E_NOMEM only. */
static bool store(const am_param *p, void *object, const char *text, int *rc)
{
    union {
        bool flag;
        int64_t integer;
        double real;
        int index;
        am_dtype dtype;
        char *string;
    } v;
    void *to = member(p, object);
    switch (p->type) {
    case AM_PARAM_BOOL:
        return parse_bool(text, &v.flag) && (memcpy(to, &v.flag, sizeof v.flag), true);
    case AM_PARAM_INT:
        return parse_int(text, &v.integer) && in_range(p, (double)v.integer) &&
               (memcpy(to, &v.integer, sizeof v.integer), true);
    case AM_PARAM_REAL:
        return parse_real(text, &v.real) && in_range(p, v.real) &&
               (memcpy(to, &v.real, sizeof v.real), true);
    case AM_PARAM_BYTES:
        if (am_parse_bytes(text, &v.integer) != 0) {
            am_error_clear(); /* the caller's message names the key */
            return false;
        }
        return in_range(p, (double)v.integer) && (memcpy(to, &v.integer, sizeof v.integer), true);
    case AM_PARAM_CHOICE:
        return parse_choice(p->choices, text, &v.index) &&
               (memcpy(to, &v.index, sizeof v.index), true);
    case AM_PARAM_DTYPE:
        v.dtype = am_dtype_parse(text);
        return v.dtype != AM_DTYPE_COUNT && (memcpy(to, &v.dtype, sizeof v.dtype), true);
    case AM_PARAM_STRING:
        v.string = strdup(text);
        if (v.string == NULL) {
            *rc = am_fail(AM_E_NOMEM, "no memory for the value of key `%s`", p->key);
            return true;
        }
        free(*(char **)to);
        *(char **)to = v.string;
        return true;
    }
    return false;
}

int am_param_defaults(const am_param *table, void *object)
{
    int rc = 0;
    for (const am_param *p = table; p->key != NULL; p++) {
        if (p->type == AM_PARAM_STRING) {
            *(char **)member(p, object) = NULL;
        }
        bool is_absent = p->type == AM_PARAM_STRING && p->fallback != NULL && *p->fallback == '\0';
        if (p->fallback == NULL || is_absent) {
            continue;
        }
        if (!store(p, object, p->fallback, &rc)) {
            rc = am_fail(AM_E_BUG, "the default `%s` of key `%s` is not %s", p->fallback, p->key,
                         describe_type(p));
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int am_param_set(const am_param *table, void *object, const char *key, const char *text,
                 const char *where)
{
    int rc = 0, i = am_param_find(table, key);
    if (i < 0) {
        return fail_unknown_key(table, key, where);
    }
    if (!store(&table[i], object, text, &rc)) {
        return fail_value(&table[i], text, where);
    }
    return rc;
}

int am_param_require(const am_param *table, const bool *is_set, const char *where)
{
    char list[1024] = "";
    size_t at = 0;
    int missing = 0;
    for (int i = 0; table[i].key != NULL; i++) {
        if (table[i].fallback == NULL && !is_set[i]) {
            int n = snprintf(list + at, sizeof list - at, "%s`%s`", missing > 0 ? ", " : "",
                             table[i].key);
            at += n > 0 && (size_t)n < sizeof list - at ? (size_t)n : 0;
            missing++;
        }
    }
    return missing == 0
               ? 0
               : am_fail(AM_E_RECIPE, "%s: missing key%s %s", where, missing > 1 ? "s" : "", list);
}

void am_param_free(const am_param *table, void *object)
{
    for (const am_param *p = table; p->key != NULL; p++) {
        if (p->type == AM_PARAM_STRING) {
            char **string = member(p, object);
            free(*string);
            *string = NULL;
        }
    }
}

static void print_choice(const am_param *p, int index, am_json *j)
{
    const char *at = p->choices;
    for (int i = 0; i < index; i++) {
        at += strcspn(at, "|") + 1;
    }
    char name[WORD];
    (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(at, "|"), at);
    am_json_string(j, p->key, name);
}

void am_param_print_json(const am_param *table, const void *object, am_json *members)
{
    for (const am_param *p = table; p->key != NULL; p++) {
        const void *from = const_member(p, object);
        switch (p->type) {
        case AM_PARAM_BOOL:
            am_json_bool(members, p->key, *(const bool *)from);
            break;
        case AM_PARAM_INT:
        case AM_PARAM_BYTES:
            am_json_int(members, p->key, *(const int64_t *)from);
            break;
        case AM_PARAM_REAL:
            am_json_real(members, p->key, *(const double *)from);
            break;
        case AM_PARAM_STRING:
            am_json_string(members, p->key, *(char *const *)from);
            break;
        case AM_PARAM_CHOICE:
            print_choice(p, *(const int *)from, members);
            break;
        case AM_PARAM_DTYPE:
            am_json_string(members, p->key, am_dtype_name(*(const am_dtype *)from));
            break;
        }
    }
}

void am_param_help(const am_param *table, void *out)
{
    for (const am_param *p = table; p->key != NULL; p++) {
        (void)fprintf(out, "  %-20s %s (%s; ", p->key, p->help, describe_type(p));
        if (p->fallback == NULL) {
            (void)fprintf(out, "required)\n");
        } else {
            (void)fprintf(out, "default %s)\n", *p->fallback == '\0' ? "none" : p->fallback);
        }
    }
}
