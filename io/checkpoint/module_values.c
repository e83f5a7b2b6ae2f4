/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/module_values.h"

#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "mpi/arena.h"
#include "mpi/error.h"

struct am_module_value {
    const char *key; /* borrowed */
    size_t length;
    bool is_plain;
    regex_t regex; /* unless it is plain */
    double value;
};

bool am_module_key_is_plain(const char *key)
{
    return strpbrk(key, "\\^$*+?()[]{}|") == NULL;
}

/* As ^(.*\.)?KEY$ would: a dot is any character. */
static bool plain_matches(const struct am_module_value *p, const char *module, size_t n)
{
    if (p->length > n || (p->length < n && module[n - p->length - 1] != '.')) {
        return false;
    }
    const char *tail = module + n - p->length;
    size_t i = p->length;
    while (i > 0 && (p->key[i - 1] == tail[i - 1] || p->key[i - 1] == '.')) {
        i--;
    }
    return i == 0;
}

static int compile(const char *path, const char *what, struct am_module_value *p)
{
    const char *odd = strchr(p->key, '\\');
    while (odd != NULL && odd[1] == '.') {
        odd = strchr(odd + 2, '\\');
    }
    char *text = am_text("^(.*\\.)?(%s)$", p->key);
    if (text == NULL) {
        return AM_E_NOMEM;
    }
    const bool failed = odd != NULL || strstr(p->key, "(?") != NULL ||
                        strstr(p->key, "*?") != NULL ||
                        regcomp(&p->regex, text, REG_EXTENDED | REG_NOSUB) != 0;
    free(text);
    return failed ? am_fail(AM_E_DATA, "%s: %s: cannot read the pattern '%s'; write module names",
                            path, what, p->key)
                  : 0;
}

static int read_item(const char *path, const char *what, const char *key, const json_t *value,
                     am_module_values *out)
{
    struct am_module_value *p = &out->item[out->n];
    if (!json_is_number(value)) {
        return am_fail(AM_E_DATA, "%s: %s: %s is not a number", path, what, key);
    }
    *p = (struct am_module_value){.key = key,
                                  .length = strlen(key),
                                  .is_plain = am_module_key_is_plain(key),
                                  .value = json_number_value(value)};
    const int rc = p->is_plain ? 0 : compile(path, what, p);
    out->n += rc == 0;
    return rc;
}

int am_module_values_read(const char *path, const char *what, json_t *map, am_module_values *out)
{
    const char *key;
    json_t *value;
    int rc = 0;
    if (map == NULL || json_is_null(map)) {
        return 0;
    }
    if (!json_is_object(map)) {
        return am_fail(AM_E_DATA, "%s: %s is not an object", path, what);
    }
    out->item = am_new((int64_t)json_object_size(map) + 1, sizeof *out->item, "an adapter");
    if (out->item == NULL) {
        return AM_E_NOMEM;
    }
    json_object_foreach(map, key, value)
    {
        AM_KEEP(read_item(path, what, key, value, out));
    }
    return rc;
}

double am_module_value_of(const am_module_values *values, const char *module, double fallback)
{
    const size_t n = strlen(module);
    for (int64_t i = 0; i < values->n; i++) {
        const struct am_module_value *p = &values->item[i];
        if (p->is_plain ? plain_matches(p, module, n)
                        : regexec(&p->regex, module, 0, NULL, 0) == 0) {
            return p->value;
        }
    }
    return fallback;
}

void am_module_values_free(am_module_values *values)
{
    for (int64_t i = 0; i < values->n; i++) {
        if (!values->item[i].is_plain) {
            regfree(&values->item[i].regex);
        }
    }
    free(values->item);
    *values = (am_module_values){0};
}
