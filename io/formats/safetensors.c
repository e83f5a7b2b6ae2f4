/* safetensors: u64 header length N, N bytes of JSON (padded with spaces), then the tensors' bytes
 * without holes or overlaps. SPDX-License-Identifier: BSD-3-Clause */
#include "io/formats/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/file.h"
#include "io/checkpoint/format.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/jsonw.h"

static const int64_t largest_header = 100000000; /* the reference's limit */

static int bad(const char *path, const char *rule)
{
    return am_fail(AM_E_DATA, "%s is not a sound safetensors file: %s", path, rule);
}

/* ---- parsing ---- */

typedef struct span {
    int64_t lo, hi, index;
} span;

static int by_offset(const void *a, const void *b)
{
    const span *x = a, *y = b;
    if (x->lo != y->lo) {
        return x->lo < y->lo ? -1 : 1;
    }
    return (x->hi > y->hi) - (x->hi < y->hi);
}

static int parse_metadata(const char *path, json_t *object, am_meta *meta)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object)) {
        return bad(path, "__metadata__ is not an object");
    }
    json_object_foreach(object, key, value)
    {
        if (!json_is_string(value)) {
            return am_fail(AM_E_DATA, "%s: __metadata__ entry %s is not a string", path, key);
        }
        if (strcmp(key, AM_META_ST_HEADER) == 0) {
            return am_fail(AM_E_DATA, "%s: the metadata key %s is reserved", path, key);
        }
        int rc =
            am_meta_get(meta, key) == NULL ? am_meta_set(meta, key, json_string_value(value)) : 0;
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* One tensor's {"dtype", "shape", "data_offsets"}; where[0..1] are the offsets. */
static int parse_tensor(const char *path, const char *name, json_t *entry, am_tensor *t,
                        int64_t where[2])
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    json_t *shape = json_object_get(entry, "shape");
    json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_object(entry) || dtype == NULL || !json_is_array(shape) ||
        !json_is_array(offsets) || json_object_size(entry) != 3 || json_array_size(offsets) != 2) {
        return am_fail(AM_E_DATA, "%s: tensor %s is not exactly dtype, shape and data_offsets",
                       path, name);
    }
    t->dtype = am_dtype_parse(dtype);
    if (t->dtype == AM_DTYPE_COUNT || strcmp(am_dtype_name(t->dtype), dtype) != 0) {
        return am_fail(AM_E_DATA, "%s: tensor %s has the unknown dtype %s", path, name, dtype);
    }
    if (json_array_size(shape) > AM_MAX_DIMS) {
        return am_fail(AM_E_DATA, "%s: tensor %s has more than %d dimensions", path, name,
                       AM_MAX_DIMS);
    }
    t->ndim = (int)json_array_size(shape);
    for (int d = 0; d < t->ndim; d++) {
        json_t *extent = json_array_get(shape, (size_t)d);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0) {
            return am_fail(AM_E_DATA, "%s: tensor %s has a bad shape", path, name);
        }
        t->shape[d] = (int64_t)json_integer_value(extent);
    }
    for (size_t i = 0; i < 2; i++) {
        json_t *offset = json_array_get(offsets, i);
        if (!json_is_integer(offset) || json_integer_value(offset) < 0) {
            return am_fail(AM_E_DATA, "%s: tensor %s has bad data_offsets", path, name);
        }
        where[i] = (int64_t)json_integer_value(offset);
    }
    return 0;
}

/* Data is covered from 0 to the end, without overlap, in some order. */
static int check_cover(const char *path, const am_layout *layout, span *spans, int64_t n,
                       int64_t data_bytes)
{
    int64_t at = 0;
    qsort(spans, (size_t)n, sizeof *spans, by_offset);
    for (int64_t i = 0; i < n; i++) {
        const char *name = layout->tensors.t[spans[i].index].name;
        if (spans[i].lo != at) {
            return am_fail(AM_E_DATA,
                           "%s: tensor %s begins at %" PRId64 ", expected %" PRId64 " (%s)", path,
                           name, spans[i].lo, at, spans[i].lo < at ? "overlap" : "hole");
        }
        at = spans[i].hi;
    }
    if (at != data_bytes) {
        return am_fail(AM_E_DATA,
                       "%s: the tensors take %" PRId64 " bytes but the file holds %" PRId64
                       " (truncated, or bytes after the end)",
                       path, at, data_bytes);
    }
    return 0;
}

static int parse_entries(const char *path, json_t *root, int64_t start, int64_t data_bytes,
                         int32_t file, am_layout *layout)
{
    int64_t n = 0, total = (int64_t)json_object_size(root);
    const char *name;
    json_t *entry;
    int rc = 0;
    span *spans = am_new(total + 1, sizeof *spans, path);
    if (spans == NULL) {
        return AM_E_NOMEM;
    }
    json_object_foreach(root, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            AM_TRY(parse_metadata(path, entry, &layout->meta));
            continue;
        }
        am_tensor t;
        int64_t where[2];
        AM_TRY(parse_tensor(path, name, entry, &t, where));
        int64_t index = layout->tensors.n;
        AM_TRY(am_layout_add(layout, name, t.dtype, t.ndim, t.shape,
                             (am_extent){.file = file, .offset = start + where[0]}));
        if (where[0] > where[1] || where[1] > data_bytes ||
            where[1] - where[0] != am_tensor_bytes(&layout->tensors.t[index])) {
            rc = am_fail(AM_E_DATA,
                         "%s: tensor %s %s does not fit its data_offsets [%" PRId64 ", %" PRId64
                         "] in %" PRId64 " bytes (truncated?)",
                         path, name, am_tensor_describe(&layout->tensors.t[index]), where[0],
                         where[1], data_bytes);
            goto cleanup;
        }
        spans[n++] = (span){where[0], where[1], index};
    }
    AM_TRY(check_cover(path, layout, spans, n, data_bytes));
cleanup:
    free(spans);
    return rc;
}

/* Parse header text whose data starts at file offset `start`; appends to the layout. */
static int parse_header(const char *path, const char *text, int64_t n, int64_t start,
                        int64_t data_bytes, int32_t file, am_layout *layout)
{
    if (n < 2 || text[0] != '{') {
        return bad(path, "the header does not begin with {");
    }
    json_error_t error;
    json_t *root = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        return am_fail(AM_E_DATA, "%s is not a sound safetensors file: header, byte %d: %s", path,
                       error.position, error.text);
    }
    int rc = parse_entries(path, root, start, data_bytes, file, layout);
    json_decref(root);
    return rc;
}

/* ---- the canonical header ---- */

/* The reference's order: dtypes by falling rank of its list, then names. */
static int dtype_rank(am_dtype dtype)
{
    static const am_dtype falling[] = {AM_DTYPE_U64, AM_DTYPE_I64, AM_DTYPE_F64,  AM_DTYPE_F32,
                                       AM_DTYPE_U32, AM_DTYPE_I32, AM_DTYPE_BF16, AM_DTYPE_F16,
                                       AM_DTYPE_U16, AM_DTYPE_I16, AM_DTYPE_I8,   AM_DTYPE_U8,
                                       AM_DTYPE_BOOL};
    int rank = 0;
    while (rank < (int)(sizeof falling / sizeof *falling) && falling[rank] != dtype) {
        rank++;
    }
    return rank;
}

typedef struct place {
    const am_tensor *tensor;
    int64_t lo; /* from the start of the data */
} place;

static int by_rank(const void *a, const void *b)
{
    const am_tensor *x = ((const place *)a)->tensor, *y = ((const place *)b)->tensor;
    int order = dtype_rank(x->dtype) - dtype_rank(y->dtype);
    return order != 0 ? order : strcmp(x->name, y->name);
}

static void write_metadata(am_json *j, const am_meta *meta)
{
    bool any = false;
    for (int64_t i = 0; meta != NULL && i < meta->n; i++) {
        if (strcmp(meta->key[i], AM_META_ST_HEADER) == 0) {
            continue;
        }
        if (!any) {
            am_json_object(j, "__metadata__");
            any = true;
        }
        am_json_string(j, meta->key[i], meta->value[i]);
    }
    if (any) {
        am_json_end_object(j);
    }
}

static void write_place(am_json *j, const place *p)
{
    const am_tensor *t = p->tensor;
    am_json_object(j, t->name);
    am_json_string(j, "dtype", am_dtype_name(t->dtype));
    am_json_array(j, "shape");
    for (int d = 0; d < t->ndim; d++) {
        am_json_int(j, NULL, t->shape[d]);
    }
    am_json_end_array(j);
    am_json_array(j, "data_offsets");
    am_json_int(j, NULL, p->lo);
    am_json_int(j, NULL, p->lo + am_tensor_bytes(t));
    am_json_end_array(j);
    am_json_end_object(j);
}

/* Header text, padded so that the data begins at a multiple of 8. places[n] is put in order. */
static int canonical_header(place *places, int64_t n, const am_meta *meta, char **text,
                            int64_t *bytes)
{
    int rc = 0;
    int64_t at = 0;
    am_json j = {0};
    qsort(places, (size_t)n, sizeof *places, by_rank);
    am_json_object(&j, NULL);
    write_metadata(&j, meta);
    for (int64_t i = 0; i < n; i++) {
        places[i].lo = at;
        write_place(&j, &places[i]);
        at += am_tensor_bytes(places[i].tensor);
    }
    am_json_end_object(&j);
    AM_TRY(am_json_finish(&j));
    int64_t length = (int64_t)j.length, padded = (length + 7) / 8 * 8;
    if (padded > largest_header) {
        rc = am_fail(AM_E_CREATE,
                     "the safetensors header would take %" PRId64 " bytes, more than %" PRId64
                     ": write HDF5 or a folder",
                     padded, largest_header);
        goto cleanup;
    }
    char *out = am_new(padded + 1, 1, "a safetensors header");
    if (out == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    memset(out, ' ', (size_t)padded);
    memcpy(out, j.text, (size_t)length);
    *text = out;
    *bytes = padded;
cleanup:
    am_json_free(&j);
    return rc;
}

/* ---- reading a file ---- */

/* Keep the header as metadata unless the canonical writer would make the same bytes. */
static int keep_odd_header(const am_layout *layout, const char *text, int64_t n, am_meta *meta)
{
    int rc = 0;
    char *canonical = NULL;
    int64_t bytes = 0, tensors = layout->tensors.n;
    place *places = am_new(tensors + 1, sizeof *places, "a safetensors header");
    if (places == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < tensors; i++) {
        places[i].tensor = &layout->tensors.t[i];
    }
    AM_TRY(canonical_header(places, tensors, meta, &canonical, &bytes));
    if (bytes != n || memcmp(canonical, text, (size_t)n) != 0) {
        AM_TRY(am_meta_set(meta, AM_META_ST_HEADER, text));
    }
cleanup:
    free(canonical);
    free(places);
    return rc;
}

int am_st_read(const char *path, int32_t file, bool keep_header, am_layout *layout)
{
    int rc = 0;
    char *text = NULL;
    int64_t size = 0;
    int fd = am_file_open(path, &size);
    if (fd < 0) {
        return fd;
    }
    uint64_t length = 0;
    if (size < 8) {
        rc = bad(path, "it is shorter than its 8-byte header length (truncated?)");
        goto cleanup;
    }
    AM_TRY(am_file_read(fd, path, &length, 8, 0));
    if (length > (uint64_t)largest_header) {
        rc = am_fail(AM_E_DATA,
                     "%s is not a sound safetensors file: its header length %" PRIu64
                     " is above the limit of %" PRId64,
                     path, length, largest_header);
        goto cleanup;
    }
    int64_t n = (int64_t)length;
    if (n > size - 8) {
        rc = bad(path, "the header is longer than the file (truncated?)");
        goto cleanup;
    }
    text = am_new(n + 1, 1, path);
    if (text == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    AM_TRY(am_file_read(fd, path, text, n, 8));
    AM_TRY(parse_header(path, text, n, 8 + n, size - 8 - n, file, layout));
    if (keep_header) {
        AM_TRY(keep_odd_header(layout, text, n, &layout->meta));
    }
cleanup:
    free(text);
    close(fd);
    return rc;
}

static bool recognises(const am_probe *probe)
{
    return !probe->is_folder && probe->bytes >= 9 && probe->head[8] == '{';
}

static int read_layout(const char *path, am_layout *out)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return am_fail(AM_E_NOINPUT, "cannot find %s", path);
    }
    int file = am_layout_add_file(out, "", (int64_t)st.st_size);
    if (file < 0) {
        return file;
    }
    int rc = am_st_read(path, file, true, out);
    return rc != 0 ? rc : am_layout_finish(out);
}

/* ---- writing ---- */

/* True if two tables hold the same names, dtypes and shapes. */
static bool same_tensors(const am_tensor_table *a, const am_tensor_table *b)
{
    for (int64_t i = 0; a->n == b->n && i < a->n; i++) {
        const am_tensor *x = &a->t[i], *y = &b->t[i];
        if (strcmp(x->name, y->name) != 0 || x->dtype != y->dtype || x->ndim != y->ndim ||
            memcmp(x->shape, y->shape, (size_t)x->ndim * sizeof *x->shape) != 0) {
            return false;
        }
    }
    return a->n == b->n;
}

static bool same_metadata(const am_meta *kept, const am_meta *wanted)
{
    int64_t n = wanted->n - 1; /* without the kept header itself */
    for (int64_t i = 0; i < kept->n; i++) {
        const char *value = am_meta_get(wanted, kept->key[i]);
        if (value == NULL || strcmp(value, kept->value[i]) != 0) {
            return false;
        }
    }
    return kept->n == n;
}

/* If meta keeps a header that describes exactly these tensors and metadata, use it: *text stays
 * NULL otherwise. places[i].lo is set from it. */
static int kept_header(place *places, int64_t n, const am_meta *meta, char **text, int64_t *bytes)
{
    const char *kept = meta != NULL ? am_meta_get(meta, AM_META_ST_HEADER) : NULL;
    if (kept == NULL || strlen(kept) > (size_t)largest_header) {
        return 0;
    }
    int rc = 0;
    am_layout then = {0}, now = {0};
    int64_t data_bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        const am_tensor *t = places[i].tensor;
        AM_TRY(am_layout_add(&now, t->name, t->dtype, t->ndim, t->shape, (am_extent){0}));
        data_bytes += am_tensor_bytes(t);
    }
    AM_TRY(am_layout_finish(&now));
    int parsed = parse_header("kept header", kept, (int64_t)strlen(kept), 0, data_bytes, 0, &then);
    if (parsed == 0) {
        parsed = am_layout_finish(&then);
    }
    if (parsed == AM_E_DATA) {
        am_error_clear(); /* of other tensors, or edited by somebody: the canonical form then */
        goto cleanup;
    }
    AM_TRY(parsed);
    if (!same_tensors(&then.tensors, &now.tensors) || !same_metadata(&then.meta, meta)) {
        goto cleanup;
    }
    for (int64_t i = 0; i < n; i++) {
        places[i].lo =
            then.extent[am_tensor_table_find(&then.tensors, places[i].tensor->name)].offset;
    }
    *text = am_text("%s", kept);
    *bytes = (int64_t)strlen(kept);
    rc = *text == NULL ? AM_E_NOMEM : 0;
cleanup:
    am_layout_free(&then);
    am_layout_free(&now);
    return rc;
}

static int write_file(const char *path, const char *header, int64_t header_bytes,
                      int64_t file_bytes)
{
    int fd = am_file_create(path);
    if (fd < 0) {
        return fd;
    }
    int rc = 0;
    uint64_t length = (uint64_t)header_bytes;
    AM_KEEP(am_file_reserve(fd, path, file_bytes));
    AM_KEEP(am_file_write(fd, path, &length, 8, 0));
    AM_KEEP(am_file_write(fd, path, header, header_bytes, 8));
    int closed = am_file_sync_close(fd, path);
    return rc != 0 ? rc : closed;
}

int am_st_lay_out(const char *path, const am_tensor_table *tensors, const int64_t *pick, int64_t n,
                  const am_meta *meta, int32_t file, am_layout *layout)
{
    int rc = 0;
    char *header = NULL;
    int64_t header_bytes = 0, data_bytes = 0;
    place *places = am_new(n + 1, sizeof *places, "a safetensors header");
    if (places == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        places[i].tensor = &tensors->t[pick[i]];
        data_bytes += am_tensor_bytes(places[i].tensor);
    }
    AM_TRY(kept_header(places, n, meta, &header, &header_bytes));
    if (header == NULL) {
        AM_TRY(canonical_header(places, n, meta, &header, &header_bytes));
    }
    layout->files[file].bytes = 8 + header_bytes + data_bytes;
    AM_TRY(write_file(path, header, header_bytes, layout->files[file].bytes));
    for (int64_t i = 0; i < n; i++) {
        const am_tensor *t = places[i].tensor;
        AM_TRY(am_layout_add(layout, t->name, t->dtype, t->ndim, t->shape,
                             (am_extent){.file = file, .offset = 8 + header_bytes + places[i].lo}));
    }
cleanup:
    free(header);
    free(places);
    return rc;
}

static int lay_out(const char *path, const am_tensor_table *tensors, const am_ckpt_options *options,
                   am_layout *out)
{
    int rc = 0;
    int64_t *pick = am_new(tensors->n + 1, sizeof *pick, "a safetensors header");
    if (pick == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < tensors->n; i++) {
        pick[i] = i;
    }
    int file = am_layout_add_file(out, "", 0);
    AM_TRY(file < 0 ? file : 0);
    AM_TRY(am_st_lay_out(path, tensors, pick, tensors->n, options->meta, file, out));
    AM_TRY(am_layout_finish(out));
cleanup:
    free(pick);
    return rc;
}

static const char *const endings[] = {".safetensors", NULL};

const am_format am_format_safetensors = {
    .name = "safetensors",
    .help = "one safetensors file",
    .endings = endings,
    .recognises = recognises,
    .read_layout = read_layout,
    .lay_out = lay_out,
};
