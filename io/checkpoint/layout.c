/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/layout.h"

#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "mpi/arena.h"
#include "mpi/error.h"

int64_t am_tensor_bytes(const am_tensor *tensor)
{
    return tensor->numel * am_dtype_bytes(tensor->dtype);
}

int am_layout_add_file(am_layout *layout, const char *name, int64_t bytes)
{
    size_t n = (size_t)layout->n_files + 1;
    am_layout_file *files = realloc(layout->files, n * sizeof *files);
    if (files == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for a list of files");
    }
    layout->files = files;
    char *copy = strdup(name);
    if (copy == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for a file name");
    }
    files[layout->n_files] = (am_layout_file){.name = copy, .bytes = bytes};
    return (int)layout->n_files++;
}

int am_layout_add(am_layout *layout, const char *name, am_dtype dtype, int ndim,
                  const int64_t *shape, am_extent extent)
{
    if (layout->tensors.n == layout->extent_capacity) {
        int64_t capacity = layout->extent_capacity == 0 ? 64 : 2 * layout->extent_capacity;
        am_extent *grown = realloc(layout->extent, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for a table of tensors");
        }
        layout->extent = grown;
        layout->extent_capacity = capacity;
    }
    int64_t i = layout->tensors.n;
    int rc = am_tensor_table_add(&layout->tensors, name, dtype, ndim, shape);
    if (rc == 0) {
        layout->extent[i] = extent;
    }
    return rc;
}

typedef struct item {
    am_tensor tensor;
    am_extent extent;
} item;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const item *)a)->tensor.name, ((const item *)b)->tensor.name);
}

int am_layout_finish(am_layout *layout)
{
    int64_t n = layout->tensors.n;
    item *items = am_new(n + 1, sizeof *items, "a table of tensors");
    if (items == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        items[i] = (item){layout->tensors.t[i], layout->extent[i]};
    }
    qsort(items, (size_t)n, sizeof *items, by_name);
    for (int64_t i = 0; i < n; i++) {
        layout->tensors.t[i] = items[i].tensor;
        layout->extent[i] = items[i].extent;
    }
    free(items);
    return am_tensor_table_finish(&layout->tensors); /* already in order: finds duplicates */
}

char *am_layout_path(const am_layout *layout, const char *root, int64_t f)
{
    const char *name = layout->files[f].name;
    return name[0] == '\0' ? am_text("%s", root) : am_text("%s/%s", root, name);
}

void am_layout_free(am_layout *layout)
{
    am_tensor_table_free(&layout->tensors);
    free(layout->extent);
    am_meta_free(&layout->meta);
    for (int64_t f = 0; f < layout->n_files; f++) {
        free(layout->files[f].name);
    }
    free(layout->files);
    *layout = (am_layout){0};
}

/* ---- byte string: int64 numbers and counted strings, same build on all ranks ---- */

typedef struct stream {
    char *data;
    int64_t at, n; /* packing: n is the capacity, 0 while measuring */
} stream;

static void put(stream *s, const void *data, int64_t n)
{
    if (s->data != NULL && n > 0) {
        memcpy(s->data + s->at, data, (size_t)n);
    }
    s->at += n;
}

static void put_int(stream *s, int64_t value)
{
    put(s, &value, sizeof value);
}

static void put_text(stream *s, const char *text)
{
    int64_t n = (int64_t)strlen(text) + 1;
    put_int(s, n);
    put(s, text, n);
}

static void put_layout(stream *s, const am_layout *layout)
{
    put_int(s, layout->n_files);
    for (int64_t f = 0; f < layout->n_files; f++) {
        put_text(s, layout->files[f].name);
        put_int(s, layout->files[f].bytes);
    }
    put_int(s, layout->meta.n);
    for (int64_t i = 0; i < layout->meta.n; i++) {
        put_text(s, layout->meta.key[i]);
        put_text(s, layout->meta.value[i]);
    }
    put_int(s, layout->tensors.n);
    for (int64_t i = 0; i < layout->tensors.n; i++) {
        const am_tensor *t = &layout->tensors.t[i];
        put_text(s, t->name);
        put_int(s, (int64_t)t->dtype);
        put_int(s, t->ndim);
        put(s, t->shape, (int64_t)sizeof t->shape);
        put(s, &layout->extent[i], (int64_t)sizeof layout->extent[i]);
    }
}

int am_layout_pack(const am_layout *layout, char **bytes, int64_t *n)
{
    stream measure = {0};
    put_layout(&measure, layout);
    stream s = {.data = am_new(measure.at, 1, "a checkpoint's table"), .n = measure.at};
    if (s.data == NULL) {
        return AM_E_NOMEM;
    }
    put_layout(&s, layout);
    *bytes = s.data;
    *n = s.at;
    return 0;
}

static const char *get(stream *s, int64_t n)
{
    AM_ASSERT(n >= 0 && n <= s->n - s->at);
    const char *at = s->data + s->at;
    s->at += n;
    return at;
}

static int64_t get_int(stream *s)
{
    int64_t value;
    memcpy(&value, get(s, sizeof value), sizeof value);
    return value;
}

static const char *get_text(stream *s)
{
    int64_t n = get_int(s);
    return get(s, n);
}

int am_layout_unpack(const char *bytes, int64_t n, am_layout *layout)
{
    int rc = 0;
    stream s = {.data = (char *)(uintptr_t)bytes, .n = n}; /* only read */
    for (int64_t left = get_int(&s); left > 0; left--) {
        const char *name = get_text(&s);
        int index = am_layout_add_file(layout, name, get_int(&s));
        AM_TRY(index < 0 ? index : 0);
    }
    for (int64_t left = get_int(&s); left > 0; left--) {
        const char *key = get_text(&s);
        AM_TRY(am_meta_set(&layout->meta, key, get_text(&s)));
    }
    for (int64_t left = get_int(&s); left > 0; left--) {
        const char *name = get_text(&s);
        am_dtype dtype = (am_dtype)get_int(&s);
        int ndim = (int)get_int(&s);
        int64_t shape[AM_MAX_DIMS];
        memcpy(shape, get(&s, sizeof shape), sizeof shape);
        am_extent extent;
        memcpy(&extent, get(&s, sizeof extent), sizeof extent);
        AM_TRY(am_layout_add(layout, name, dtype, ndim, shape, extent));
    }
    rc = am_layout_finish(layout);
cleanup:
    if (rc != 0) {
        am_layout_free(layout);
    }
    return rc;
}
