/* Inputs with their rows in the order of the output's vocabulary. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "io/dtype.h"
#include "jobs/merge/vocab.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { RAW_ELEMENTS = 4096 };

struct am_vocab_source {
    const am_vocab_rows *rows;
    int file;
    am_source *inner; /* [files] owned */
    am_tensor_table tensors;
    bool *is_mapped;    /* [tensors] owned */
    int64_t mean_of;    /* tensor whose mean row is there, -1: none */
    double *row, *mean; /* [widest] owned; mean: of all rows of mean_of */
    double *other;      /* [widest] owned */
    am_span *spans[2];  /* handed to the file's own source; valid until the call after the next */
    int64_t capacity[2];
    int turn;
};

static int64_t columns_of(const am_vocab_source *s, int64_t tensor)
{
    return s->tensors.t[tensor].numel / s->rows->rows;
}

static int32_t own_row(const am_vocab_source *s, int file, int64_t row)
{
    return s->rows->own[(int64_t)file * s->rows->tokens + row];
}

/* Row `at` of the tensor in another file. */
static int load_of(const am_vocab_source *s, int file, int64_t tensor, int64_t at, double *dst)
{
    const am_source *source = &s->inner[file];
    const int64_t columns = columns_of(s, tensor);
    const char *name = s->tensors.t[tensor].name;
    const int64_t i = am_tensor_table_find(source->tensors, name);
    if (i < 0 || source->tensors->t[i].numel < (at + 1) * columns) {
        return am_fail(AM_E_DATA,
                       "%s: row %lld of tensor '%s' is wanted for a token that others lack",
                       source->label, (long long)at, name);
    }
    return source->load(source->self, i, at * columns, columns, dst);
}

/* Mean over the files that have the token, and the tensor. */
static int load_mean(am_vocab_source *s, int64_t tensor, int64_t row, double *dst)
{
    const int64_t columns = columns_of(s, tensor);
    int n = 0, rc = 0;
    memset(dst, 0, (size_t)columns * sizeof *dst);
    for (int f = 0; rc == 0 && f < s->rows->files; f++) {
        const bool has_it =
            am_tensor_table_find(s->inner[f].tensors, s->tensors.t[tensor].name) >= 0;
        if (own_row(s, f, row) < 0 || !has_it) {
            continue;
        }
        rc = load_of(s, f, tensor, own_row(s, f, row), s->other);
        for (int64_t i = 0; rc == 0 && i < columns; i++) {
            dst[i] += s->other[i];
        }
        n++;
    }
    for (int64_t i = 0; i < columns; i++) {
        dst[i] /= n > 0 ? n : 1;
    }
    return rc;
}

/* A whole row below `tokens`. */
static int load_token(am_vocab_source *s, int64_t tensor, int64_t row, double *dst)
{
    const int32_t own = own_row(s, s->file, row), donor = s->rows->donor[row];
    if (own >= 0 && !s->rows->is_forced[row]) {
        return load_of(s, s->file, tensor, own, dst);
    }
    if (donor == AM_VOCAB_MEAN) {
        return load_mean(s, tensor, row, dst);
    }
    if (donor == AM_VOCAB_ZERO) {
        memset(dst, 0, (size_t)columns_of(s, tensor) * sizeof *dst);
        return 0;
    }
    return load_of(s, donor, tensor, s->rows->donor_row[row], dst);
}

/* The mean of all rows, for padding; kept for the tensor. */
static int need_mean(am_vocab_source *s, int64_t tensor)
{
    const int64_t columns = columns_of(s, tensor);
    int rc = 0;
    if (s->mean_of == tensor) {
        return 0;
    }
    s->mean_of = -1;
    memset(s->mean, 0, (size_t)columns * sizeof *s->mean);
    for (int64_t row = 0; rc == 0 && row < s->rows->tokens; row++) {
        rc = load_token(s, tensor, row, s->row);
        for (int64_t i = 0; rc == 0 && i < columns; i++) {
            s->mean[i] += s->row[i];
        }
    }
    for (int64_t i = 0; i < columns; i++) {
        s->mean[i] /= (double)s->rows->tokens;
    }
    s->mean_of = rc == 0 ? tensor : -1;
    return rc;
}

/* How many rows from `row` on stand one after the other in the file itself, at most `most`. */
static int64_t run_of(const am_vocab_source *s, int64_t row, int64_t most)
{
    int64_t n = 0;
    while (n < most && row + n < s->rows->tokens && !s->rows->is_forced[row + n] &&
           own_row(s, s->file, row + n) >= 0 &&
           own_row(s, s->file, row + n) == own_row(s, s->file, row) + n) {
        n++;
    }
    return n;
}

static int load_mapped(am_vocab_source *s, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    const am_source *own = &s->inner[s->file];
    const int64_t columns = columns_of(s, tensor);
    int rc = 0;
    for (int64_t at = lo, step; rc == 0 && at < lo + n; at += step) {
        const int64_t row = at / columns, column = at % columns, left = lo + n - at;
        const int64_t run = run_of(s, row, (column + left + columns - 1) / columns);
        const int64_t room = (run > 0 ? run : 1) * columns - column;
        step = room < left ? room : left;
        if (run > 0) {
            rc = own->load(own->self, tensor, own_row(s, s->file, row) * columns + column, step,
                           dst + (at - lo));
            continue;
        }
        const bool is_padding = row >= s->rows->tokens;
        rc = is_padding ? need_mean(s, tensor) : load_token(s, tensor, row, s->row);
        if (rc == 0) {
            memcpy(dst + (at - lo), (is_padding ? s->mean : s->row) + column,
                   (size_t)step * sizeof *dst);
        }
    }
    return rc;
}

static int load(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    am_vocab_source *s = self;
    const am_source *own = &s->inner[s->file];
    return s->is_mapped[tensor] ? load_mapped(s, tensor, lo, n, dst)
                                : own->load(own->self, tensor, lo, n, dst);
}

static int load_raw(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    am_vocab_source *s = self;
    const am_source *own = &s->inner[s->file];
    const am_dtype dtype = s->tensors.t[tensor].dtype;
    if (!s->is_mapped[tensor]) {
        return own->load_raw(own->self, tensor, lo, n, dst);
    }
    double *real = am_new(RAW_ELEMENTS, sizeof *real, "a conversion");
    int rc = real != NULL ? 0 : AM_E_NOMEM;
    for (int64_t at = 0; rc == 0 && at < n; at += RAW_ELEMENTS) {
        const int64_t m = n - at < RAW_ELEMENTS ? n - at : RAW_ELEMENTS;
        rc = load_mapped(s, tensor, lo + at, m, real);
        if (rc == 0) {
            am_dtype_from_f64(dtype, real, m, (char *)dst + at * am_dtype_bytes(dtype));
        }
    }
    free(real);
    return rc;
}

/* Rows that move are read without read-ahead. */
static int stage(void *self, const am_span *spans, int64_t n)
{
    am_vocab_source *s = self;
    const am_source *own = &s->inner[s->file];
    if (own->stage == NULL) {
        return 0;
    }
    const int turn = s->turn;
    s->turn ^= 1;
    if (n > s->capacity[turn]) {
        free(s->spans[turn]);
        s->spans[turn] = am_new(n, sizeof *s->spans[turn], "a batch's spans");
        s->capacity[turn] = s->spans[turn] != NULL ? n : 0;
        if (s->spans[turn] == NULL) {
            return AM_E_NOMEM;
        }
    }
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!s->is_mapped[spans[i].tensor]) {
            s->spans[turn][m++] = spans[i];
        }
    }
    return own->stage(own->self, s->spans[turn], m);
}

/* Embeddings and heads; of vectors, the bias of a head. */
static bool is_vocabulary(const am_tensor *t, const am_layers *layers, int64_t size)
{
    const bool is_bias = t->ndim == 1 && strstr(t->name, "head") != NULL;
    const bool is_position = strstr(t->name, "wpe") != NULL || strstr(t->name, "position") != NULL;
    return am_dtype_is_float(t->dtype) && (t->ndim == 2 || is_bias) && t->shape[0] == size &&
           t->numel > 0 && !is_position && am_layer_number(layers, t->name) < 0;
}

/* The table with the new numbers of rows; names keep their order. */
static int fill_table(am_vocab_source *s, const am_layers *layers)
{
    const am_tensor_table *from = s->inner[s->file].tensors;
    int64_t widest = 1;
    s->is_mapped = am_new(from->n + 1, sizeof *s->is_mapped, "a table of tensors");
    int rc = s->is_mapped != NULL ? 0 : AM_E_NOMEM;
    for (int64_t i = 0; rc == 0 && i < from->n; i++) {
        am_tensor t = from->t[i];
        s->is_mapped[i] = is_vocabulary(&t, layers, s->rows->size[s->file]);
        if (s->is_mapped[i]) {
            const int64_t columns = t.numel / t.shape[0];
            widest = columns > widest ? columns : widest;
            t.shape[0] = s->rows->rows;
        }
        rc = am_tensor_table_add(&s->tensors, t.name, t.dtype, t.ndim, t.shape);
    }
    AM_KEEP(am_tensor_table_finish(&s->tensors));
    s->row = am_new(widest, sizeof *s->row, "a row");
    s->mean = am_new(widest, sizeof *s->mean, "a row");
    s->other = am_new(widest, sizeof *s->other, "a row");
    return s->row != NULL && s->mean != NULL && s->other != NULL ? rc : AM_E_NOMEM;
}

int am_vocab_source_create(const am_vocab_rows *rows, const am_layers *layers, int f,
                           const am_source *sources, am_vocab_source **wrapper, am_source *out)
{
    am_vocab_source *s = am_new(1, sizeof *s, "an input");
    *wrapper = s;
    if (s == NULL) {
        return AM_E_NOMEM;
    }
    s->rows = rows;
    s->file = f;
    s->mean_of = -1;
    s->inner = am_new(rows->files, sizeof *s->inner, "inputs");
    if (s->inner == NULL) {
        return AM_E_NOMEM;
    }
    memcpy(s->inner, sources, (size_t)rows->files * sizeof *s->inner);
    int rc = fill_table(s, layers);
    *out = (am_source){.self = s,
                       .label = s->inner[f].label,
                       .tensors = &s->tensors,
                       .stage = stage,
                       .load = load,
                       .load_raw = load_raw};
    return rc;
}

void am_vocab_source_free(am_vocab_source **source)
{
    am_vocab_source *s = *source;
    if (s == NULL) {
        return;
    }
    am_tensor_table_free(&s->tensors);
    free(s->inner);
    free(s->is_mapped);
    free(s->row);
    free(s->mean);
    free(s->other);
    free(s->spans[0]);
    free(s->spans[1]);
    free(s);
    *source = NULL;
}
