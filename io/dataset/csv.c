/* Tables as data sets. SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/csv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/dataset/packages.h"
#include "io/dataset/prepare.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/param.h"

enum { MOST_COLUMNS = 1 << 16, LEAST_ROWS = 10 };
static const int64_t largest_file = INT64_C(16) << 30;

/* A file in memory, cut into fields line by line. */
typedef struct table {
    const char *path;
    char *text; /* owned, NUL-ended; fields are cut out in place */
    char *at;   /* the next line */
    int64_t line;
    int64_t columns;
    char **field; /* [columns] of the current line, in text */
    int64_t label;
    int64_t rows, features;
    float *x;   /* [rows, features] owned */
    int64_t *y; /* [rows] owned: numbers in `classes` as they appear */
    am_names classes;
} table;

/* Take the quotes off a field that starts with one, in place; *end: its end in the line. */
static int unquote(const table *t, char *field, char **end)
{
    char *to = field, *from = field + 1;
    while (*from != '"' || from[1] == '"') {
        if (*from == '\0') {
            return am_fail(AM_E_DATA, "%s:%lld: a quoted field does not end on its line", t->path,
                           (long long)t->line);
        }
        from += *from == '"';
        *to++ = *from++;
    }
    *end = from + 1;
    if (**end != ',' && **end != '\0') {
        return am_fail(AM_E_DATA, "%s:%lld: text after the end of a quoted field", t->path,
                       (long long)t->line);
    }
    if (to < *end) {
        *to = '\0'; /* two quotes at least are gone: the comma behind them is kept */
    }
    return 0;
}

/* The next line that is not empty, ended; NULL at the end of the file. */
static char *next_line(table *t)
{
    while (*t->at != '\0') {
        char *line = t->at;
        const size_t length = strcspn(line, "\n");
        t->at += length + (line[length] == '\n');
        line[length] = '\0';
        if (length > 0 && line[length - 1] == '\r') {
            line[length - 1] = '\0';
        }
        t->line++;
        if (line[0] != '\0') {
            return line;
        }
    }
    return NULL;
}

/* Cut `line` in place into fields, of which at most `most` are kept; *n: how many there are. */
static int cut_line(const table *t, char *line, int64_t most, char **field, int64_t *n)
{
    bool is_last = false;
    *n = 0;
    for (char *at = line; !is_last;) {
        char *end = at + strcspn(at, ",");
        const int rc = *at == '"' ? unquote(t, at, &end) : 0;
        if (rc != 0) {
            return rc;
        }
        is_last = *end == '\0';
        *end = '\0';
        if (*n < most) {
            field[*n] = at;
        }
        ++*n;
        at = end + 1;
    }
    return 0;
}

/* ---- header ---- */

static int read_header(table *t, const char *label)
{
    char *line = next_line(t);
    if (line == NULL) {
        return am_fail(AM_E_DATA, "%s: empty: it needs a header and rows", t->path);
    }
    char **name = am_new(MOST_COLUMNS + 1, sizeof *name, "columns");
    if (name == NULL) {
        return AM_E_NOMEM;
    }
    t->field = name; /* freed with the table */
    const int rc = cut_line(t, line, MOST_COLUMNS, name, &t->columns);
    if (rc != 0) {
        return rc;
    }
    if (t->columns > MOST_COLUMNS || t->columns < 2) {
        return am_fail(AM_E_DATA, "%s:%lld: %lld columns; 2 to %d are possible", t->path,
                       (long long)t->line, (long long)t->columns, (int)MOST_COLUMNS);
    }
    t->label = -1;
    for (int64_t i = 0; i < t->columns; i++) {
        t->label = strcmp(name[i], label) == 0 ? i : t->label;
        for (int64_t k = 0; k < i; k++) {
            if (strcmp(name[i], name[k]) == 0) {
                return am_fail(AM_E_DATA, "%s:%lld: the header names column '%s' twice", t->path,
                               (long long)t->line, name[i]);
            }
        }
    }
    if (t->label < 0) {
        name[t->columns] = NULL;
        const char *nearest = am_nearest((const char *const *)name, label);
        return am_fail(AM_E_DATA, "%s: no column '%s' for the labels%s%s%s", t->path, label,
                       nearest ? "; did you mean '" : "", nearest ? nearest : "",
                       nearest ? "'?" : "");
    }
    t->features = t->columns - 1;
    return 0;
}

/* ---- rows ---- */

static int read_number(const table *t, int64_t column, float *out)
{
    const char *text = t->field[column];
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite((float)value)) {
        return am_fail(AM_E_DATA, "%s:%lld: '%s' in column %lld is not a finite number", t->path,
                       (long long)t->line, text, (long long)column + 1);
    }
    *out = (float)value;
    return 0;
}

static int read_row(table *t, char *line)
{
    int64_t n = 0;
    float *x = t->x + t->rows * t->features;
    int rc = cut_line(t, line, t->columns, t->field, &n);
    if (rc == 0 && n != t->columns) {
        rc = am_fail(AM_E_DATA, "%s:%lld: %lld fields, the header has %lld", t->path,
                     (long long)t->line, (long long)n, (long long)t->columns);
    }
    for (int64_t i = 0; rc == 0 && i < t->columns; i++) {
        if (t->field[i][0] == '\0') {
            rc = am_fail(AM_E_DATA,
                         "%s:%lld: column %lld is empty: fill in missing values, or leave out the "
                         "row",
                         t->path, (long long)t->line, (long long)i + 1);
        } else if (i != t->label) {
            rc = read_number(t, i, x++);
        }
    }
    if (rc == 0) {
        t->y[t->rows] = am_names_add(&t->classes, t->field[t->label]);
        rc = t->y[t->rows] < 0 ? AM_E_NOMEM : 0;
        t->rows++;
    }
    return rc;
}

static int read_rows(table *t)
{
    int64_t most = 1;
    for (const char *c = t->at; *c != '\0'; c++) {
        most += *c == '\n';
    }
    t->x = am_new(most, (size_t)t->features * sizeof *t->x, "a table");
    t->y = am_new(most, sizeof *t->y, "labels");
    int rc = t->x == NULL || t->y == NULL ? AM_E_NOMEM : 0;
    for (char *line; rc == 0 && (line = next_line(t)) != NULL;) {
        rc = read_row(t, line);
    }
    if (rc == 0 && t->rows < LEAST_ROWS) {
        rc = am_fail(AM_E_DATA, "%s: %lld rows are too few for three splits (%d)", t->path,
                     (long long)t->rows, LEAST_ROWS);
    }
    return rc;
}

/* ---- to splits ---- */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Classes in bytewise order, and t->y in their numbers. */
static int sort_classes(table *t, am_prepared *out)
{
    const int64_t n = t->classes.n;
    char **sorted = am_new(n, sizeof *sorted, "classes");
    int64_t *rank = am_new(n, sizeof *rank, "classes");
    int rc = sorted == NULL || rank == NULL ? AM_E_NOMEM : 0;
    if (rc == 0) {
        memcpy(sorted, t->classes.name, (size_t)n * sizeof *sorted);
        qsort(sorted, (size_t)n, sizeof *sorted, compare_texts);
        for (int64_t k = 0; k < n; k++) {
            char **at =
                bsearch(&t->classes.name[k], sorted, (size_t)n, sizeof *sorted, compare_texts);
            rank[k] = at - sorted;
        }
        for (int64_t i = 0; i < t->rows; i++) {
            t->y[i] = rank[t->y[i]];
        }
        rc = am_prepared_classes(out, (const char *const *)sorted, n);
    }
    free(sorted);
    free(rank);
    return rc;
}

/* Scale every feature by mean and deviation of the training rows. */
static int scale(am_prepared *out)
{
    const int64_t F = out->features, n = out->n[AM_TRAIN];
    double *mean = am_new(2 * F, sizeof *mean, "a table");
    bool *is_varied = am_new(F, sizeof *is_varied, "a table");
    if (mean == NULL || is_varied == NULL) {
        free(mean);
        free(is_varied);
        return AM_E_NOMEM;
    }
    double *square = mean + F;
    for (int64_t i = 0; i < n * F; i++) {
        mean[i % F] += (double)out->real[AM_TRAIN][i] / (double)n;
    }
    for (int64_t i = 0; i < n * F; i++) { /* a rounded mean is no deviation */
        const bool is_first = out->real[AM_TRAIN][i] == out->real[AM_TRAIN][i % F];
        is_varied[i % F] = is_varied[i % F] || !is_first;
        const double d = (double)out->real[AM_TRAIN][i] - mean[i % F];
        square[i % F] += d * d / (double)n;
    }
    for (int s = 0; s < AM_SPLITS; s++) {
        for (int64_t i = 0; i < out->n[s] * F; i++) {
            const double deviation = sqrt(square[i % F]);
            const double d = (double)out->real[s][i] - mean[i % F];
            out->real[s][i] = is_varied[i % F] ? (float)(d / deviation) : 0;
        }
    }
    free(mean);
    free(is_varied);
    return 0;
}

/* Rows in an order drawn by the seed: the first tenth for test, the next for validation. */
static int divide(const table *t, uint64_t seed, const char *name, am_prepared *out)
{
    const am_rng rng = am_rng_make(seed, "draw", 0, 0, name);
    const int64_t tenth = t->rows / 10, F = t->features;
    const int64_t from[AM_SPLITS] = {2 * tenth, tenth, 0},
                  to[AM_SPLITS] = {t->rows, 2 * tenth, tenth};
    out->features = F;
    for (int s = 0; s < AM_SPLITS; s++) {
        out->n[s] = to[s] - from[s];
        out->real[s] = am_new(out->n[s], (size_t)F * sizeof **out->real, "a table");
        out->y[s] = am_new(out->n[s], sizeof **out->y, "labels");
        if (out->real[s] == NULL || out->y[s] == NULL) {
            return AM_E_NOMEM;
        }
        for (int64_t i = 0; i < out->n[s]; i++) {
            const int64_t row = am_rng_permute(&rng, t->rows, from[s] + i);
            memcpy(out->real[s] + i * F, t->x + row * F, (size_t)F * sizeof *t->x);
            out->y[s][i] = (int32_t)t->y[row];
        }
    }
    return 0;
}

static int describe(const char *path, am_prepared *out)
{
    out->source = strdup(path);
    out->licence = strdup("");
    return out->source != NULL && out->licence != NULL
               ? 0
               : am_fail(AM_E_NOMEM, "no memory for the description of the source");
}

int am_csv_read(const char *path, const char *label, bool standardize, uint64_t seed,
                am_prepared *out)
{
    table t = {.path = path};
    uint8_t *bytes = NULL;
    int64_t n = 0;
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    int rc = am_read_whole(path, largest_file, &bytes, &n);
    if (rc == 0) {
        t.text = am_new(n + 1, 1, "a table");
        rc = t.text == NULL ? AM_E_NOMEM : 0;
    }
    if (rc == 0) {
        memcpy(t.text, bytes, (size_t)n);
        t.at = t.text + (n >= 3 && memcmp(t.text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0);
        if (memchr(t.text, '\0', (size_t)n) != NULL) {
            rc = am_fail(AM_E_DATA, "%s: not a text file", path);
        }
    }
    AM_KEEP(read_header(&t, label));
    AM_KEEP(read_rows(&t));
    AM_KEEP(sort_classes(&t, out));
    AM_KEEP(divide(&t, seed, name, out));
    AM_KEEP(standardize ? scale(out) : 0);
    AM_KEEP(describe(name, out));
    free(bytes);
    free(t.text);
    free(t.field);
    free(t.x);
    free(t.y);
    am_names_free(&t.classes);
    return rc;
}
