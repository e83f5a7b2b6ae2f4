/* JSON text, appended. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/jsonw.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"

static void append(am_json *j, const char *text, size_t n)
{
    if (j->failed) {
        return;
    }
    if (n >= j->capacity - j->length) {
        size_t capacity = 2 * j->capacity + n + 256;
        char *grown = realloc(j->text, capacity);
        if (grown == NULL) {
            j->failed = true;
            return;
        }
        j->text = grown;
        j->capacity = capacity;
    }
    memcpy(j->text + j->length, text, n);
    j->length += n;
    j->text[j->length] = '\0';
}

static void append_text(am_json *j, const char *text)
{
    append(j, text, strlen(text));
}

int am_utf8_step(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] == 0) {
        return 0;
    }
    if (s[0] < 0x80) {
        return 1;
    }
    int n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4) {
        return 0;
    }
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool is_overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool is_surrogate = s[0] == 0xed && s[1] > 0x9f;
    bool is_beyond = s[0] == 0xf4 && s[1] > 0x8f;
    return is_overlong || is_surrogate || is_beyond ? 0 : n;
}

/* Bytes that are not UTF-8 (a path may hold any) become U+FFFD: the text stays valid JSON. */
static void append_quoted(am_json *j, const char *s)
{
    append(j, "\"", 1);
    while (*s != '\0') {
        int n = am_utf8_step(s);
        if (n == 0) {
            append_text(j, "\xef\xbf\xbd");
            s++;
            continue;
        }
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            char escape[2] = {'\\', (char)c};
            append(j, escape, 2);
        } else if (c == '\n') {
            append(j, "\\n", 2);
        } else if (c == '\t') {
            append(j, "\\t", 2);
        } else if (c < 0x20) {
            char escape[8];
            (void)snprintf(escape, sizeof escape, "\\u%04x", c);
            append_text(j, escape);
        } else {
            append(j, s, (size_t)n);
        }
        s += n;
    }
    append(j, "\"", 1);
}

static void begin(am_json *j, const char *key)
{
    if (j->comma) {
        append(j, ",", 1);
    }
    j->comma = true;
    if (key != NULL) {
        append_quoted(j, key);
        append(j, ":", 1);
    }
}

void am_json_object(am_json *j, const char *key)
{
    begin(j, key);
    append(j, "{", 1);
    j->comma = false;
}

void am_json_array(am_json *j, const char *key)
{
    begin(j, key);
    append(j, "[", 1);
    j->comma = false;
}

void am_json_end_object(am_json *j)
{
    append(j, "}", 1);
    j->comma = true;
}

void am_json_end_array(am_json *j)
{
    append(j, "]", 1);
    j->comma = true;
}

void am_json_string(am_json *j, const char *key, const char *value)
{
    begin(j, key);
    if (value == NULL) {
        append(j, "null", 4);
    } else {
        append_quoted(j, value);
    }
}

void am_json_int(am_json *j, const char *key, int64_t value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRId64, value);
    begin(j, key);
    append_text(j, text);
}

/* 15 digits hold every short decimal; only subnormals have fewer significant ones. */
void am_json_real(am_json *j, const char *key, double value)
{
    char text[40] = "null";
    if (isfinite(value)) {
        for (int digits = fpclassify(value) == FP_SUBNORMAL ? 1 : 15; digits <= 17; digits++) {
            (void)snprintf(text, sizeof text, "%.*g", digits, value);
            if (strtod(text, NULL) == value) {
                break;
            }
        }
    }
    begin(j, key);
    append_text(j, text);
}

void am_json_bool(am_json *j, const char *key, bool value)
{
    begin(j, key);
    append_text(j, value ? "true" : "false");
}

void am_json_raw(am_json *j, const char *key, const char *json)
{
    begin(j, key);
    append_text(j, json);
}

void am_json_members(am_json *j, const am_json *members)
{
    if (members->length > 0) {
        begin(j, NULL);
        append(j, members->text, members->length);
    }
    j->failed = j->failed || members->failed;
}

void am_json_newline(am_json *j)
{
    append(j, "\n", 1);
}

int am_json_finish(const am_json *j)
{
    return j->failed || j->text == NULL ? am_fail(AM_E_NOMEM, "no memory for a JSON text") : 0;
}

void am_json_free(am_json *j)
{
    free(j->text);
    *j = (am_json){0};
}
