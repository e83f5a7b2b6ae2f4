/* Element types and tensor tables. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "mpi/error.h"
#include "mpi/jsonw.h"

static const struct {
    const char *name, *torch;
    int64_t bytes;
    bool is_float;
} dtypes[AM_DTYPE_COUNT] = {
#define AM_DTYPE_ROW(name, st, torch, bytes, is_float) {st, torch, bytes, is_float},
    AM_DTYPE_LIST(AM_DTYPE_ROW)
#undef AM_DTYPE_ROW
};

static const struct {
    const char *name;
    am_dtype dtype;
} aliases[] = {
    {"fp64", AM_DTYPE_F64},  {"double", AM_DTYPE_F64}, {"fp32", AM_DTYPE_F32},
    {"float", AM_DTYPE_F32}, {"fp16", AM_DTYPE_F16},   {"half", AM_DTYPE_F16},
    {"long", AM_DTYPE_I64},  {"int", AM_DTYPE_I32},    {"short", AM_DTYPE_I16},
    {"byte", AM_DTYPE_U8},
};

static bool is_dtype(am_dtype dtype)
{
    return (int)dtype >= 0 && dtype < AM_DTYPE_COUNT;
}

int64_t am_dtype_bytes(am_dtype dtype)
{
    AM_ASSERT(is_dtype(dtype));
    return dtypes[dtype].bytes;
}

bool am_dtype_is_float(am_dtype dtype)
{
    AM_ASSERT(is_dtype(dtype));
    return dtypes[dtype].is_float;
}

const char *am_dtype_name(am_dtype dtype)
{
    AM_ASSERT(is_dtype(dtype));
    return dtypes[dtype].name;
}

am_dtype am_dtype_parse(const char *name)
{
    if (strncasecmp(name, "torch.", 6) == 0) {
        name += 6;
    }
    for (int i = 0; i < AM_DTYPE_COUNT; i++) {
        if (strcasecmp(name, dtypes[i].name) == 0 || strcasecmp(name, dtypes[i].torch) == 0) {
            return (am_dtype)i;
        }
    }
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (strcasecmp(name, aliases[i].name) == 0) {
            return aliases[i].dtype;
        }
    }
    return AM_DTYPE_COUNT;
}

static int check_name(const char *name)
{
    size_t n = strnlen(name, AM_MAX_NAME + 1);
    if (n == 0 || n > AM_MAX_NAME) {
        return am_fail(AM_E_DATA, "a tensor name has %s", n == 0 ? "no bytes" : "over 4096 bytes");
    }
    for (const char *s = name; *s != '\0';) {
        int step = am_utf8_step(s);
        if (step == 0 || (unsigned char)*s < 0x20 || *s == 0x7f) {
            return am_fail(AM_E_DATA,
                           "a tensor name has the byte 0x%02x at position %td: names are UTF-8 "
                           "without control characters",
                           (unsigned char)*s, s - name);
        }
        s += step;
    }
    return 0;
}

/* *numel := product of the extents, whose bytes must fit an int64. */
static int count_elements(const char *name, am_dtype dtype, int ndim, const int64_t *shape,
                          int64_t *numel)
{
    int64_t n = 1, bytes = 0;
    if (ndim < 0 || ndim > AM_MAX_DIMS) {
        return am_fail(AM_E_DATA, "tensor %s has %d dimensions, at most %d are possible", name,
                       ndim, AM_MAX_DIMS);
    }
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) {
            return am_fail(AM_E_DATA, "tensor %s has the negative extent %" PRId64, name, shape[i]);
        }
        if (__builtin_mul_overflow(n, shape[i], &n)) {
            return am_fail(AM_E_DATA, "tensor %s is too large: its size overflows 64 bits", name);
        }
    }
    if (__builtin_mul_overflow(n, am_dtype_bytes(dtype), &bytes)) {
        return am_fail(AM_E_DATA, "tensor %s is too large: its size overflows 64 bits", name);
    }
    *numel = n;
    return 0;
}

static int table_reserve(am_tensor_table *table, int64_t capacity)
{
    if (capacity <= table->capacity) {
        return 0;
    }
    am_tensor *grown = realloc(table->t, (size_t)capacity * sizeof *grown);
    if (grown == NULL) {
        return am_fail(AM_E_NOMEM, "no memory for a table of %" PRId64 " tensors", capacity);
    }
    table->t = grown;
    table->capacity = capacity;
    return 0;
}

int am_tensor_table_add(am_tensor_table *table, const char *name, am_dtype dtype, int ndim,
                        const int64_t *shape)
{
    int rc = 0;
    am_tensor tensor = {.dtype = dtype, .ndim = ndim};
    AM_ASSERT(is_dtype(dtype));
    AM_TRY(check_name(name));
    AM_TRY(count_elements(name, dtype, ndim, shape, &tensor.numel));
    if (table->n == table->capacity) {
        AM_TRY(table_reserve(table, 2 * table->capacity + 16));
    }
    for (int i = 0; i < ndim; i++) {
        tensor.shape[i] = shape[i];
    }
    tensor.name = strdup(name);
    if (tensor.name == NULL) {
        rc = am_fail(AM_E_NOMEM, "no memory for the name of tensor %s", name);
        goto cleanup;
    }
    table->t[table->n++] = tensor;
cleanup:
    return rc;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const am_tensor *)a)->name, ((const am_tensor *)b)->name);
}

int am_tensor_table_finish(am_tensor_table *table)
{
    if (table->n > 1) {
        qsort(table->t, (size_t)table->n, sizeof *table->t, compare_names);
    }
    for (int64_t i = 1; i < table->n; i++) {
        if (strcmp(table->t[i - 1].name, table->t[i].name) == 0) {
            return am_fail(AM_E_DATA, "tensor %s appears twice", table->t[i].name);
        }
    }
    return 0;
}

int64_t am_tensor_table_find(const am_tensor_table *table, const char *name)
{
    int64_t lo = 0, hi = table->n;
    while (lo < hi) {
        int64_t middle = lo + (hi - lo) / 2;
        int order = strcmp(table->t[middle].name, name);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            lo = middle + 1;
        } else {
            hi = middle;
        }
    }
    return -1;
}

int am_tensor_table_copy(const am_tensor_table *from, am_tensor_table *to)
{
    int rc = 0;
    am_tensor_table copy = {0};
    AM_TRY(table_reserve(&copy, from->n));
    for (int64_t i = 0; i < from->n; i++) {
        const am_tensor *t = &from->t[i];
        AM_TRY(am_tensor_table_add(&copy, t->name, t->dtype, t->ndim, t->shape));
    }
    *to = copy;
    copy = (am_tensor_table){0};
cleanup:
    am_tensor_table_free(&copy);
    return rc;
}

void am_tensor_table_free(am_tensor_table *table)
{
    for (int64_t i = 0; i < table->n; i++) {
        free(table->t[i].name);
    }
    free(table->t);
    *table = (am_tensor_table){0};
}

int64_t am_tensor_table_bytes(const am_tensor_table *table)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < table->n; i++) {
        bytes += table->t[i].numel * am_dtype_bytes(table->t[i].dtype);
    }
    return bytes;
}

int64_t am_tensor_table_numel(const am_tensor_table *table)
{
    int64_t numel = 0;
    for (int64_t i = 0; i < table->n; i++) {
        numel += table->t[i].numel;
    }
    return numel;
}

const char *am_tensor_describe(const am_tensor *tensor)
{
    static _Thread_local char texts[4][AM_MAX_DIMS * 21 + 16];
    static _Thread_local unsigned turn = 0;
    char *text = texts[turn++ % 4];
    size_t at = 0, size = sizeof texts[0];
    at += (size_t)snprintf(text, size, "[");
    for (int i = 0; i < tensor->ndim; i++) {
        at += (size_t)snprintf(text + at, size - at, "%s%" PRId64, i > 0 ? "," : "",
                               tensor->shape[i]);
    }
    (void)snprintf(text + at, size - at, "] %s", am_dtype_name(tensor->dtype));
    return text;
}
