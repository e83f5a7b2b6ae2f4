/* Reading a data set file: every rule of io/datasets/README.md is checked here, once, on one rank.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/dataset_read.h"

#include <errno.h>
#include <hdf5.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "mpi/arena.h"
#include "io/hdf5/h5_util.h"
#include "mpi/error.h"

enum { FORMAT_VERSION = 1, MAX_TEXT = 1 << 24, MAX_CLASSES = 1 << 20, LABEL_BLOCK = 1 << 18 };

const char *const am_dataset_split_name[AM_SPLITS] = {"train", "validation", "test"};

/* ---- rules for values ---- */

int am_dataset_check_label(const char *path, const char *label, int64_t sample, double value,
                           int64_t classes)
{
    if (!(value >= 0 && value < MAX_CLASSES)) {
        return am_fail(AM_E_DATA, "%s: %s[%lld] is %.0f, labels are 0 to classes-1", path, label,
                       (long long)sample, value);
    }
    return classes == 0 || value < (double)classes
               ? 0
               : am_fail(AM_E_DATA, "%s: %s[%lld] is %.0f but there are %lld classes", path, label,
                         (long long)sample, value, (long long)classes);
}

int am_dataset_check_floats(const char *path, const char *label, int64_t first, int64_t n,
                            int64_t width, const float *x)
{
    for (int64_t i = 0; i < n * width; i++) {
        if (!isfinite(x[i])) {
            return am_fail(AM_E_DATA,
                           "%s: %s holds a value that is not a finite f32, in sample %lld", path,
                           label, (long long)(first + i / width));
        }
    }
    return 0;
}

int am_dataset_check_tokens(const char *path, const char *label, int64_t first, int64_t n,
                            int64_t width, const uint8_t *x, int64_t classes)
{
    for (int64_t i = 0; classes < 256 && i < n * width; i++) {
        if (x[i] >= classes) {
            return am_fail(AM_E_DATA, "%s: %s holds %d in sample %lld, there are %lld classes",
                           path, label, x[i], (long long)(first + i / width), (long long)classes);
        }
    }
    return 0;
}

/* A file being read. */
typedef struct am_reader {
    hid_t file;
    const char *path;
    bool is_head; /* no values */
} am_reader;

static int fail_damaged(const am_reader *r, const char *what)
{
    return am_fail(AM_E_DATA, "%s: cannot read %s: damaged, or a filter is missing", r->path, what);
}

/* ---- attributes of the root ---- */

/* Text of fixed or variable length into an owned string; NULL if absent. */
static int read_text(const am_reader *r, const char *key, char **text)
{
    int rc = 0;
    char *variable = NULL;
    hid_t attribute = -1, type = -1, memory = -1, space = -1;
    *text = NULL;
    if (H5Aexists(r->file, key) <= 0) {
        return 0;
    }
    attribute = H5Aopen(r->file, key, H5P_DEFAULT);
    type = attribute >= 0 ? H5Aget_type(attribute) : -1;
    space = attribute >= 0 ? H5Aget_space(attribute) : -1;
    if (type < 0 || space < 0 || H5Tget_class(type) != H5T_STRING ||
        H5Sget_simple_extent_npoints(space) != 1 || H5Tget_size(type) > MAX_TEXT) {
        AM_TRY(am_fail(AM_E_DATA, "%s: attribute %s must be one string", r->path, key));
    }
    memory = H5Tcopy(type);
    if (memory < 0) {
        AM_TRY(am_fail(AM_E_NOMEM, "%s: no memory for attribute %s", r->path, key));
    }
    if (H5Tis_variable_str(type) > 0) {
        if (H5Aread(attribute, memory, &variable) < 0) {
            AM_TRY(fail_damaged(r, key));
        }
        *text = strdup(variable != NULL ? variable : "");
    } else {
        *text = am_new((int64_t)H5Tget_size(type) + 1, 1, "attribute");
        if (*text != NULL && H5Aread(attribute, memory, *text) < 0) {
            AM_TRY(fail_damaged(r, key));
        }
    }
    if (*text == NULL) {
        AM_TRY(am_fail(AM_E_NOMEM, "%s: no memory for attribute %s", r->path, key));
    }
cleanup:
    if (variable != NULL) {
        (void)H5free_memory(variable);
    }
    if (memory >= 0) {
        (void)H5Tclose(memory);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    if (type >= 0) {
        (void)H5Tclose(type);
    }
    if (attribute >= 0) {
        (void)H5Aclose(attribute);
    }
    if (rc != 0) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

static int check_version(const am_reader *r)
{
    int64_t version = FORMAT_VERSION;
    if (H5Aexists(r->file, "allmerge") <= 0) {
        return 0; /* a file that users made */
    }
    hid_t attribute = H5Aopen(r->file, "allmerge", H5P_DEFAULT);
    hid_t space = attribute >= 0 ? H5Aget_space(attribute) : -1;
    bool is_read = space >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                   H5Aread(attribute, H5T_NATIVE_INT64, &version) >= 0;
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    if (attribute >= 0) {
        (void)H5Aclose(attribute);
    }
    return is_read && version == FORMAT_VERSION
               ? 0
               : am_fail(AM_E_DATA, "%s: format version %lld, this allmerge reads %d", r->path,
                         (long long)version, FORMAT_VERSION);
}

/* Number of class names, 0 if the file gives none. */
static int count_classes(const am_reader *r, const char *json, int64_t *n)
{
    json_error_t where;
    *n = 0;
    if (json[0] == '\0') {
        return 0;
    }
    json_t *list = json_loads(json, JSON_REJECT_DUPLICATES, &where);
    bool is_good =
        json_is_array(list) && json_array_size(list) > 0 && json_array_size(list) <= MAX_CLASSES;
    for (size_t i = 0; is_good && i < json_array_size(list); i++) {
        is_good = json_is_string(json_array_get(list, i));
    }
    *n = is_good ? (int64_t)json_array_size(list) : 0;
    json_decref(list);
    return is_good ? 0
                   : am_fail(AM_E_DATA,
                             "%s: attribute classes must be a JSON array of class names, such as "
                             "[\"cat\", \"dog\"]",
                             r->path);
}

static int read_head(const am_reader *r, am_dataset_raw *out)
{
    int rc = 0;
    AM_TRY(check_version(r));
    AM_TRY(read_text(r, "name", &out->name));
    AM_TRY(read_text(r, "classes", &out->class_json));
    if (out->name == NULL) { /* the file's own name without folder and suffix */
        const char *slash = strrchr(r->path, '/');
        out->name = strdup(slash != NULL ? slash + 1 : r->path);
        if (out->name != NULL && strrchr(out->name, '.') > out->name) {
            *strrchr(out->name, '.') = '\0';
        }
    }
    if (out->class_json == NULL) {
        out->class_json = strdup("");
    }
    if (out->name == NULL || out->class_json == NULL) {
        AM_TRY(am_fail(AM_E_NOMEM, "%s: no memory for attributes", r->path));
    }
    AM_TRY(count_classes(r, out->class_json, &out->classes));
cleanup:
    return rc;
}

/* ---- arrays ---- */

/* An open dataset and what it is. */
typedef struct am_array {
    hid_t set, space;
    char label[64]; /* "train/x" */
    int dims;
    hsize_t shape[H5S_MAX_RANK];
    H5T_class_t kind;
    size_t bytes; /* of one value */
    bool is_unsigned;
    int64_t rows; /* along the first axis that are stored together */
} am_array;

static int64_t rows_together(const am_array *a)
{
    hsize_t chunk[H5S_MAX_RANK];
    int64_t rows = 1;
    hid_t plan = H5Dget_create_plist(a->set);
    const H5D_layout_t layout = plan >= 0 ? H5Pget_layout(plan) : H5D_LAYOUT_ERROR;
    if (layout == H5D_CHUNKED && H5Pget_chunk(plan, H5S_MAX_RANK, chunk) == a->dims) {
        rows = (int64_t)chunk[0];
    } else if (layout == H5D_COMPACT && a->dims > 0) {
        rows = (int64_t)a->shape[0];
    }
    if (plan >= 0) {
        (void)H5Pclose(plan);
    }
    return rows > 0 ? rows : 1;
}

static void array_close(am_array *a)
{
    if (a->space >= 0) {
        (void)H5Sclose(a->space);
    }
    if (a->set >= 0) {
        (void)H5Dclose(a->set);
    }
}

static int array_open(const am_reader *r, int split, const char *key, am_array *a)
{
    *a = (am_array){.set = -1, .space = -1};
    (void)snprintf(a->label, sizeof a->label, "%s/%s", am_dataset_split_name[split], key);
    if (H5Lexists(r->file, am_dataset_split_name[split], H5P_DEFAULT) <= 0 ||
        H5Lexists(r->file, a->label, H5P_DEFAULT) <= 0) {
        return am_fail(AM_E_DATA,
                       "%s: no dataset %s: not a data set (it needs train, validation and test, "
                       "each with x and y)",
                       r->path, a->label);
    }
    a->set = H5Dopen2(r->file, a->label, H5P_DEFAULT);
    a->space = a->set >= 0 ? H5Dget_space(a->set) : -1;
    hid_t type = a->set >= 0 ? H5Dget_type(a->set) : -1;
    if (a->space >= 0 && type >= 0) {
        a->dims = H5Sget_simple_extent_ndims(a->space);
        a->kind = H5Tget_class(type);
        a->bytes = H5Tget_size(type);
        a->is_unsigned = a->kind == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_NONE;
    }
    bool is_good = type >= 0 && a->space >= 0 && a->dims >= 0 &&
                   H5Sget_simple_extent_dims(a->space, a->shape, NULL) >= 0;
    a->rows = is_good ? rows_together(a) : 1;
    if (type >= 0) {
        (void)H5Tclose(type);
    }
    return is_good ? 0 : fail_damaged(r, a->label);
}

/* Entries [lo, lo + n) of the first axis, converted by HDF5 only between widths of integers. */
static int array_read(const am_reader *r, const am_array *a, int64_t lo, int64_t n,
                      hid_t memory_type, void *data)
{
    hsize_t start[H5S_MAX_RANK] = {(hsize_t)lo}, count[H5S_MAX_RANK];
    memcpy(count, a->shape, sizeof count);
    count[0] = (hsize_t)n;
    hid_t memory = H5Screate_simple(a->dims, count, NULL);
    bool is_read = memory >= 0 &&
                   H5Sselect_hyperslab(a->space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
                   H5Dread(a->set, memory_type, memory, a->space, H5P_DEFAULT, data) >= 0;
    if (memory >= 0) {
        (void)H5Sclose(memory);
    }
    return is_read ? 0 : fail_damaged(r, a->label);
}

/* Labels against the class names, if there are some; y may be NULL. *largest only grows. */
static int read_labels(const am_reader *r, const am_array *a, int64_t n, int64_t classes,
                       int32_t *y, int64_t *largest)
{
    int rc = 0;
    const int64_t most = n < LABEL_BLOCK ? n : LABEL_BLOCK;
    int64_t *wide = am_new(most, sizeof *wide, "labels");
    if (wide == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t lo = 0; lo < n; lo += most) {
        const int64_t count = n - lo < most ? n - lo : most;
        AM_TRY(array_read(r, a, lo, count, H5T_NATIVE_INT64, wide));
        for (int64_t i = 0; i < count; i++) {
            AM_TRY(am_dataset_check_label(r->path, a->label, lo + i, (double)wide[i], classes));
            *largest = wide[i] > *largest ? wide[i] : *largest;
            if (y != NULL) {
                y[lo + i] = (int32_t)wide[i];
            }
        }
    }
cleanup:
    free(wide);
    return rc;
}

/* f32 as it is, f64 rounded once, here and not by HDF5. */
static int read_floats(const am_reader *r, const am_array *a, int64_t n, int64_t features, float *x)
{
    int rc = 0;
    double *wide = NULL;
    int64_t values = n * features;
    if (a->bytes == sizeof(float)) {
        AM_TRY(array_read(r, a, 0, n, H5T_NATIVE_FLOAT, x));
    } else {
        wide = am_new(values, sizeof *wide, "inputs");
        if (wide == NULL) {
            AM_TRY(AM_E_NOMEM);
        }
        AM_TRY(array_read(r, a, 0, n, H5T_NATIVE_DOUBLE, wide));
        for (int64_t i = 0; i < values; i++) {
            x[i] = (float)wide[i];
        }
    }
    AM_TRY(am_dataset_check_floats(r->path, a->label, 0, n, features, x));
cleanup:
    free(wide);
    return rc;
}

/* Shapes and types of x and y against the rules; sets n and value_bytes of the part. */
static int check_arrays(const am_reader *r, const am_array *x, const am_array *y, int64_t limit,
                        int64_t *features, am_dataset_part *part)
{
    bool is_u8 = x->kind == H5T_INTEGER && x->bytes == 1 && x->is_unsigned;
    bool is_real = x->kind == H5T_FLOAT && (x->bytes == 4 || x->bytes == 8);
    if (!is_u8 && !is_real) {
        return am_fail(AM_E_DATA, "%s: %s must be u8, f32 or f64", r->path, x->label);
    }
    if (y->kind != H5T_INTEGER) {
        return am_fail(AM_E_DATA, "%s: %s must hold integers", r->path, y->label);
    }
    if (x->dims < 2 || y->dims != 1 || x->shape[0] != y->shape[0] || x->shape[0] < 1) {
        return am_fail(AM_E_DATA, "%s: %s must be [n, ...] and %s [n], n at least 1", r->path,
                       x->label, y->label);
    }
    int64_t per_sample = 1;
    for (int d = 1; d < x->dims; d++) {
        if (x->shape[d] < 1 || x->shape[d] > (hsize_t)(INT32_MAX / per_sample)) {
            return am_fail(AM_E_DATA, "%s: %s has samples of no or too many values", r->path,
                           x->label);
        }
        per_sample *= (int64_t)x->shape[d];
    }
    if (*features != 0 && *features != per_sample) {
        return am_fail(AM_E_DATA, "%s: %s has %lld features, train/x has %lld", r->path, x->label,
                       (long long)per_sample, (long long)*features);
    }
    *features = per_sample;
    part->n = limit > 0 && (hsize_t)limit < x->shape[0] ? limit : (int64_t)x->shape[0];
    part->value_bytes = is_u8 ? 1 : (int64_t)sizeof(float);
    part->x_rows = x->rows < part->n ? x->rows : part->n;
    part->y_rows = y->rows < part->n ? y->rows : part->n;
    return 0;
}

static int read_part(const am_reader *r, int split, int64_t limit, am_dataset_raw *out,
                     int64_t *largest)
{
    am_dataset_part *part = &out->part[split];
    int64_t *features = &out->features;
    int rc = 0;
    am_array x = {.set = -1, .space = -1}, y = {.set = -1, .space = -1};
    AM_TRY(array_open(r, split, "x", &x));
    AM_TRY(array_open(r, split, "y", &y));
    AM_TRY(check_arrays(r, &x, &y, limit, features, part));
    if (!r->is_head) {
        part->y = am_new(part->n, sizeof *part->y, "labels");
        AM_TRY(part->y == NULL ? AM_E_NOMEM : 0);
    }
    if (!r->is_head || out->classes == 0) {
        AM_TRY(read_labels(r, &y, part->n, out->classes, part->y, largest));
    }
    if (!r->is_head) {
        part->x = am_new(part->n, (size_t)(*features * part->value_bytes), "inputs");
        AM_TRY(part->x == NULL ? AM_E_NOMEM : 0);
        AM_TRY(part->value_bytes == 1 ? array_read(r, &x, 0, part->n, H5T_NATIVE_UINT8, part->x)
                                      : read_floats(r, &x, part->n, *features, part->x));
    }
cleanup:
    array_close(&x);
    array_close(&y);
    return rc;
}

/* A split of a text: tokens and nothing else. */
static int read_text_part(const am_reader *r, int split, int64_t limit, int64_t *features,
                          am_dataset_part *part)
{
    int rc = 0;
    am_array a = {.set = -1, .space = -1};
    AM_TRY(array_open(r, split, "tokens", &a));
    if (a.kind != H5T_INTEGER || a.bytes != 1 || !a.is_unsigned) {
        AM_TRY(am_fail(AM_E_DATA, "%s: %s must be u8", r->path, a.label));
    }
    if (a.dims != 2 || a.shape[0] < 1 || a.shape[1] < 2 || a.shape[1] > INT32_MAX) {
        AM_TRY(
            am_fail(AM_E_DATA, "%s: %s must be [n, T + 1], n and T at least 1", r->path, a.label));
    }
    const int64_t T = (int64_t)a.shape[1] - 1;
    if (*features != 0 && *features != T) {
        AM_TRY(am_fail(AM_E_DATA, "%s: %s has samples of %lld tokens, train/tokens of %lld",
                       r->path, a.label, (long long)T, (long long)*features));
    }
    *features = T;
    part->n = limit > 0 && (hsize_t)limit < a.shape[0] ? limit : (int64_t)a.shape[0];
    part->value_bytes = 1;
    part->x_rows = a.rows < part->n ? a.rows : part->n;
    if (!r->is_head) {
        part->x = am_new(part->n, (size_t)T + 1, "tokens");
        AM_TRY(part->x == NULL ? AM_E_NOMEM : 0);
        AM_TRY(array_read(r, &a, 0, part->n, H5T_NATIVE_UINT8, part->x));
    }
cleanup:
    array_close(&a);
    return rc;
}

/* Tokens against the class names; without names there are 256. */
static int check_tokens(const am_reader *r, am_dataset_raw *out)
{
    const int64_t width = am_dataset_width(out);
    out->classes = out->classes == 0 ? 256 : out->classes;
    for (int s = 0; s < AM_SPLITS; s++) {
        char label[64];
        (void)snprintf(label, sizeof label, "%s/tokens", am_dataset_split_name[s]);
        const int rc = r->is_head ? 0
                                  : am_dataset_check_tokens(r->path, label, 0, out->part[s].n,
                                                            width, out->part[s].x, out->classes);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* All of an open file. */
static int read_open(const am_reader *r, const int64_t limit[AM_SPLITS], am_dataset_raw *out)
{
    int rc = 0;
    AM_TRY(read_head(r, out));
    out->is_text = H5Lexists(r->file, "train", H5P_DEFAULT) > 0 &&
                   H5Lexists(r->file, "train/tokens", H5P_DEFAULT) > 0;
    int64_t largest = 0;
    for (int s = 0; s < AM_SPLITS; s++) {
        const int64_t most = limit != NULL ? limit[s] : 0;
        AM_TRY(out->is_text ? read_text_part(r, s, most, &out->features, &out->part[s])
                            : read_part(r, s, most, out, &largest));
    }
    if (out->is_text) {
        AM_TRY(check_tokens(r, out));
    } else if (out->classes == 0) {
        out->classes = largest + 1;
    }
cleanup:
    return rc;
}

/* A head is read where it lies; a whole file is copied first, so that its read errors are ours. */
static int read_file(const char *path, const int64_t limit[AM_SPLITS], bool is_head,
                     am_dataset_raw *out)
{
    am_reader r = {.path = path, .is_head = is_head};
    int memory = -1;
    if (is_head) {
        r.file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        if (r.file < 0) {
            return am_fail(AM_E_DATA, "%s: not an HDF5 file, or truncated", path);
        }
    } else {
        memory = am_h5_memory_open(path, &r.file);
        if (memory < 0) {
            return memory;
        }
    }
    const int rc = read_open(&r, limit, out);
    (void)H5Fclose(r.file);
    if (!is_head) {
        close(memory);
    }
    return rc;
}

static int read_path(const char *path, const int64_t limit[AM_SPLITS], bool is_head,
                     am_dataset_raw *out)
{
    int rc = 0;
    *out = (am_dataset_raw){0};
    if (access(path, R_OK) != 0) {
        return am_fail_errno(AM_E_NOINPUT, errno,
                             "cannot read data set %s (`allmerge data prepare` makes them)", path);
    }
    H5E_BEGIN_TRY
    {
        rc = read_file(path, limit, is_head, out);
    }
    H5E_END_TRY;
    if (rc != 0) {
        am_dataset_raw_free(out);
    }
    return rc;
}

int am_dataset_read(const char *path, const int64_t limit[AM_SPLITS], am_dataset_raw *out)
{
    return read_path(path, limit, false, out);
}

int am_dataset_read_head(const char *path, const int64_t limit[AM_SPLITS], am_dataset_raw *out)
{
    return read_path(path, limit, true, out);
}

void am_dataset_raw_free(am_dataset_raw *raw)
{
    for (int s = 0; s < AM_SPLITS; s++) {
        free(raw->part[s].x);
        free(raw->part[s].y);
    }
    free(raw->name);
    free(raw->class_json);
    *raw = (am_dataset_raw){0};
}
