/* Shapes and the layer table as the rest of the program sees it. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "solver/training/layer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "mpi/error.h"

extern const am_layer *const am_layer_table_f32[]; /* the f64 table has the same order */

int64_t am_shape_numel(const am_shape *shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape->n; i++) {
        n *= shape->d[i];
    }
    return n;
}

int64_t am_shape_features(const am_shape *shape)
{
    return shape->n > 0 ? shape->d[shape->n - 1] : 1;
}

int64_t am_shape_rows(const am_shape *shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape->n - 1; i++) {
        n *= shape->d[i];
    }
    return n;
}

const char *am_shape_text(const am_shape *shape)
{
    static _Thread_local char text[4][96];
    static _Thread_local int turn;
    char *out = text[turn++ & 3];
    size_t used = (size_t)snprintf(out, sizeof text[0], "[");
    for (int i = 0; i < shape->n; i++) {
        used += (size_t)snprintf(out + used, sizeof text[0] - used, "%s%lld", i > 0 ? "," : "",
                                 (long long)shape->d[i]);
    }
    snprintf(out + used, sizeof text[0] - used, "]%s", shape->is_ids ? " token ids" : "");
    return out;
}

int am_layer_fail(const am_layer_site *site, const char *format, ...)
{
    char text[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    return am_fail(AM_E_RECIPE, "layer %s: %s", site->name, text);
}

const am_layer *am_layer_at(int index)
{
    int n = 0;
    while (am_layer_table_f32[n] != NULL) {
        n++;
    }
    return index >= 0 && index < n ? am_layer_table_f32[index] : NULL;
}

int am_layer_find(const char *name)
{
    for (int i = 0; am_layer_table_f32[i] != NULL; i++) {
        const am_layer *layer = am_layer_table_f32[i];
        if (!layer->is_loss && strcmp(layer->name, name) == 0) {
            return i;
        }
    }
    return -1;
}
