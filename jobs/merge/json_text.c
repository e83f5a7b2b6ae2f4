/* JSON as text. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/json_text.h"
#include <stdbool.h>
#include <string.h>
#include "io/file.h"

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

const char *am_json_skip_string(const char *at)
{
    for (at++; *at != '\0' && *at != '"'; at++) {
        at += *at == '\\' && at[1] != '\0';
    }
    return at + (*at == '"');
}

static const char *skip_value(const char *at)
{
    int depth = 0;
    do {
        if (*at == '"') {
            at = am_json_skip_string(at);
        } else if (*at == '{' || *at == '[') {
            depth++;
            at++;
        } else if (*at == '}' || *at == ']') {
            depth--;
            at++;
        } else {
            at += depth > 0 ? 1 : strcspn(at, ",}] \t\r\n");
        }
    } while (depth > 0 && *at != '\0');
    return at;
}

const char *am_json_find(const char *text, const char *key, const char **end)
{
    const size_t bytes = strlen(key);
    const char *at = skip_space(text);
    if (*at != '{') {
        return NULL;
    }
    for (at = skip_space(at + 1); *at == '"';) {
        const char *name = at + 1;
        const char *after = am_json_skip_string(at);
        const char *colon = skip_space(after);
        if (*colon != ':') {
            return NULL;
        }
        const char *lo = skip_space(colon + 1);
        const char *hi = skip_value(lo);
        if ((size_t)(after - name) == bytes + 1 && strncmp(name, key, bytes) == 0) {
            *end = hi;
            return lo;
        }
        at = skip_space(hi);
        at = skip_space(at + (*at == ','));
    }
    return NULL;
}

char *am_json_replace(const char *text, const char *key, const char *value)
{
    const char *hi = NULL, *lo = am_json_find(text, key, &hi);
    return lo != NULL ? am_text("%.*s%s%s", (int)(lo - text), text, value, hi)
                      : am_text("%s", text);
}
