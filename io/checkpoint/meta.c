/* String metadata of a checkpoint: a small sorted map. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/checkpoint.h"
#include "mpi/error.h"

/* Index of key, or ~(place where it belongs). */
static int64_t find(const am_meta *meta, const char *key)
{
    int64_t lo = 0, hi = meta->n;
    while (lo < hi) {
        int64_t middle = lo + (hi - lo) / 2;
        int order = strcmp(meta->key[middle], key);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            lo = middle + 1;
        } else {
            hi = middle;
        }
    }
    return ~lo;
}

static int grow(am_meta *meta)
{
    int64_t capacity = meta->capacity == 0 ? 8 : 2 * meta->capacity;
    char **key = realloc(meta->key, (size_t)capacity * sizeof *key);
    if (key != NULL) {
        meta->key = key;
    }
    char **value = realloc(meta->value, (size_t)capacity * sizeof *value);
    if (value != NULL) {
        meta->value = value;
    }
    if (key == NULL || value == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for %lld metadata entries", (long long)capacity);
    }
    meta->capacity = capacity;
    return 0;
}

int am_meta_set(am_meta *meta, const char *key, const char *value)
{
    char *new_value = strdup(value);
    if (new_value == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for metadata %s", key);
    }
    int64_t i = find(meta, key);
    if (i >= 0) {
        free(meta->value[i]);
        meta->value[i] = new_value;
        return 0;
    }
    i = ~i;
    char *new_key = strdup(key);
    if (new_key == NULL || (meta->n == meta->capacity && grow(meta) != 0)) {
        free(new_key);
        free(new_value);
        return am_fail(AM_E_NOMEM, "out of memory for metadata %s", key);
    }
    size_t after = (size_t)(meta->n - i);
    memmove(meta->key + i + 1, meta->key + i, after * sizeof *meta->key);
    memmove(meta->value + i + 1, meta->value + i, after * sizeof *meta->value);
    meta->key[i] = new_key;
    meta->value[i] = new_value;
    meta->n++;
    return 0;
}

const char *am_meta_get(const am_meta *meta, const char *key)
{
    int64_t i = find(meta, key);
    return i >= 0 ? meta->value[i] : NULL;
}

void am_meta_free(am_meta *meta)
{
    for (int64_t i = 0; i < meta->n; i++) {
        free(meta->key[i]);
        free(meta->value[i]);
    }
    free(meta->key);
    free(meta->value);
    *meta = (am_meta){0};
}
