/* Layers in the names of tensors. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/layers.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"

enum { AM_MOST_DIGITS = 9 };

static const am_layers usual = {5, {"layers.N.", "layer.N.", "h.N.", "blocks.N.", "block.N."}};

bool am_layer_pattern_is_sound(const char *pattern)
{
    const char *at = NULL;
    for (const char *n = strchr(pattern, 'N'); n != NULL; n = strchr(n + 1, 'N')) {
        const bool is_alone =
            (n == pattern || !isalnum((unsigned char)n[-1])) && !isalnum((unsigned char)n[1]);
        if (is_alone && at != NULL) {
            return false;
        }
        at = is_alone ? n : at;
    }
    return at != NULL;
}

/* The lone N of a sound pattern. */
static const char *find_mark(const char *pattern)
{
    const char *n = strchr(pattern, 'N');
    while ((n != pattern && isalnum((unsigned char)n[-1])) || isalnum((unsigned char)n[1])) {
        n = strchr(n + 1, 'N');
    }
    return n;
}

/* Digits of the layer number if `pattern` fits at `at`, else 0; *number: where they begin. */
static size_t match(const char *pattern, const char *at, const char **number)
{
    const char *mark = find_mark(pattern);
    const size_t before = (size_t)(mark - pattern);
    if (strncmp(at, pattern, before) != 0) {
        return 0;
    }
    const size_t digits = strspn(at + before, "0123456789");
    *number = at + before;
    return digits <= AM_MOST_DIGITS &&
                   strncmp(at + before + digits, mark + 1, strlen(mark + 1)) == 0
               ? digits
               : 0;
}

static size_t find(const am_layers *layers, const char *tensor, const char **number)
{
    layers = layers->n > 0 ? layers : &usual;
    for (const char *at = tensor; at != NULL; at = strchr(at, '.')) {
        at += *at == '.';
        for (int i = 0; i < layers->n; i++) {
            const size_t digits = match(layers->pattern[i], at, number);
            if (digits > 0) {
                return digits;
            }
        }
    }
    return 0;
}

int64_t am_layer_number(const am_layers *layers, const char *tensor)
{
    const char *number = NULL;
    return find(layers, tensor, &number) > 0 ? strtoll(number, NULL, 10) : -1;
}

int64_t am_layer_stack(const am_layers *layers, const char *tensor)
{
    const char *number = NULL;
    return find(layers, tensor, &number) > 0 ? number - tensor : 0;
}

char *am_layer_rename(const am_layers *layers, const char *tensor, int64_t layer)
{
    const char *number = tensor;
    const size_t digits = find(layers, tensor, &number);
    return am_text("%.*s%lld%s", (int)(number - tensor), tensor, (long long)layer, number + digits);
}

bool am_layer_is_before(const char *tensor)
{
    static const char *const first[] = {"embed", "wte", "wpe", "embd"};
    static const char *const last[] = {"embed_out", "unembed", "lm_head"}; /* heads */
    bool is_before = false;
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        is_before = is_before || strstr(tensor, first[i]) != NULL;
    }
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) {
        is_before = is_before && strstr(tensor, last[i]) == NULL;
    }
    return is_before;
}
