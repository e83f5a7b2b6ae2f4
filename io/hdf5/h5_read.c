/* What is accepted: hard links to groups and datasets of plain numbers; contiguous data inside the
 * file, or compact or chunked data with the built-in filters. Refused before any data is read:
 * soft, external and user-defined links, external storage, virtual datasets, variable-length and
 * compound types, other filters, chunks above 64 MiB, shapes far larger than what is stored.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/hdf5/h5_read.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "io/file.h"
#include "io/hdf5/h5_util.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { MAX_DEPTH = 32, INFLATION = 1000 };
static const int64_t largest_chunk = 64 << 20, largest_sparse = 64 << 20;
static const hsize_t largest_attribute = 100000000;

typedef struct walk {
    const char *path; /* of the file */
    int64_t file_bytes;
    bool is_own, has_user_block;
    haddr_t *group; /* addresses of the groups seen */
    int64_t n_groups, group_capacity;
    am_layout *out;
} walk;

/* ---- datasets ---- */

static int refuse(const walk *w, const char *name, const char *what)
{
    return am_fail(AM_E_DATA, "%s: %s %s", w->path, name, what);
}

static int check_filters(const walk *w, const char *name, hid_t dcpl)
{
    int n = H5Pget_nfilters(dcpl);
    for (int i = 0; i < n; i++) {
        unsigned flags, config;
        size_t values = 0;
        H5Z_filter_t filter =
            H5Pget_filter2(dcpl, (unsigned)i, &flags, &values, NULL, 0, NULL, &config);
        if (filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE &&
            filter != H5Z_FILTER_FLETCHER32) {
            return am_fail(AM_E_DATA,
                           "%s: %s uses filter %d; only shuffle, deflate and fletcher32 are read",
                           w->path, name, (int)filter);
        }
    }
    return n < 0 ? am_h5_fail(AM_E_DATA, "%s: cannot read the filters of %s", w->path, name) : 0;
}

static int check_chunks(const walk *w, const char *name, hid_t dset, hid_t dcpl, const am_tensor *t)
{
    hsize_t dims[AM_MAX_DIMS];
    int64_t bytes = am_dtype_bytes(t->dtype), total = am_tensor_bytes(t);
    if (H5Pget_chunk(dcpl, AM_MAX_DIMS, dims) != t->ndim) {
        return refuse(w, name, "has chunks of another rank");
    }
    for (int d = 0; d < t->ndim; d++) {
        if (dims[d] == 0 || dims[d] > (hsize_t)(largest_chunk / bytes)) {
            return refuse(w, name, "has chunks above 64 MiB");
        }
        bytes *= (int64_t)dims[d];
    }
    if (total > largest_sparse && total / INFLATION > (int64_t)H5Dget_storage_size(dset)) {
        return refuse(w, name, "declares over 1000 times more data than the file stores");
    }
    return 0;
}

/* Storage of a dataset -> extent. *t has dtype and shape. */
static int find_extent(const walk *w, const char *name, hid_t dset, hid_t dcpl, const am_tensor *t,
                       bool is_swapped, am_extent *out)
{
    H5O_info_t info;
    if (H5Oget_info(dset, &info) < 0) {
        return am_h5_fail(AM_E_DATA, "%s: cannot read %s", w->path, name);
    }
    am_extent by_library = {.flags = AM_EXTENT_LIBRARY | (is_swapped ? AM_EXTENT_SWAPPED : 0),
                            .offset = (int64_t)info.addr};
    *out = by_library;
    int rc = check_filters(w, name, dcpl);
    if (rc != 0 || t->numel == 0) {
        return rc;
    }
    int64_t bytes = am_tensor_bytes(t);
    haddr_t offset = HADDR_UNDEF;
    switch (H5Pget_layout(dcpl)) {
    case H5D_CHUNKED:
        return check_chunks(w, name, dset, dcpl, t);
    case H5D_COMPACT: /* inside the object header, below 64 KiB */
        return (int64_t)H5Dget_storage_size(dset) == bytes ? 0 : refuse(w, name, "is cut short");
    case H5D_CONTIGUOUS:
        if (H5Pget_external_count(dcpl) != 0) {
            return refuse(w, name, "keeps its data in another file (external storage)");
        }
        offset = H5Dget_offset(dset);
        if (offset == HADDR_UNDEF) { /* never written: the fill value */
            return bytes <= largest_sparse ? 0 : refuse(w, name, "declares data but stores none");
        }
        if ((int64_t)H5Dget_storage_size(dset) != bytes || offset > (haddr_t)w->file_bytes ||
            bytes > w->file_bytes - (int64_t)offset) {
            return refuse(w, name, "has data outside the file (truncated?)");
        }
        if (!w->has_user_block) {
            *out =
                (am_extent){.flags = is_swapped ? AM_EXTENT_SWAPPED : 0, .offset = (int64_t)offset};
        }
        return 0;
    default:
        return refuse(w, name, "is a virtual dataset");
    }
}

static int read_shape(const walk *w, const char *name, hid_t space, am_tensor *t)
{
    hsize_t dims[AM_MAX_DIMS];
    H5S_class_t kind = H5Sget_simple_extent_type(space);
    int ndim = kind == H5S_SCALAR ? 0 : H5Sget_simple_extent_ndims(space);
    if ((kind != H5S_SCALAR && kind != H5S_SIMPLE) || ndim < 0 || ndim > AM_MAX_DIMS) {
        return refuse(w, name, "has an empty dataspace or more than 8 dimensions");
    }
    if (ndim > 0 && H5Sget_simple_extent_dims(space, dims, NULL) < 0) {
        return am_h5_fail(AM_E_DATA, "%s: cannot read the shape of %s", w->path, name);
    }
    t->ndim = ndim;
    t->numel = 1;
    for (int d = 0; d < ndim; d++) {
        t->shape[d] = (int64_t)dims[d];
        if (dims[d] > INT64_MAX || __builtin_mul_overflow(t->numel, t->shape[d], &t->numel) ||
            t->numel > INT64_MAX / 8) {
            return refuse(w, name, "has a shape beyond 64 bits");
        }
    }
    return 0;
}

static int read_dataset(walk *w, const char *name, hid_t dset)
{
    int rc = 0;
    bool is_swapped = false;
    am_tensor t = {0};
    am_extent extent;
    hid_t type = H5Dget_type(dset), space = H5Dget_space(dset);
    hid_t dcpl = H5Dget_create_plist(dset);
    if (type < 0 || space < 0 || dcpl < 0) {
        rc = am_h5_fail(AM_E_DATA, "%s: cannot read %s", w->path, name);
        goto cleanup;
    }
    t.dtype = am_h5_type_of(type, &is_swapped);
    if (t.dtype == AM_DTYPE_COUNT) {
        rc = refuse(w, name, "has an element type that is not a number of 8 to 64 bits");
        goto cleanup;
    }
    AM_TRY(read_shape(w, name, space, &t));
    AM_TRY(find_extent(w, name, dset, dcpl, &t, is_swapped, &extent));
    AM_TRY(am_layout_add(w->out, name, t.dtype, t.ndim, t.shape, extent));
cleanup:
    if (type >= 0) {
        H5Tclose(type);
    }
    if (space >= 0) {
        H5Sclose(space);
    }
    if (dcpl >= 0) {
        H5Pclose(dcpl);
    }
    return rc;
}

/* ---- groups ---- */

typedef struct links {
    char **name;
    int64_t n, capacity;
    int rc;
    const walk *w;
} links;

static herr_t collect_link(hid_t group, const char *name, const H5L_info_t *info, void *data)
{
    links *l = data;
    (void)group;
    if (info->type != H5L_TYPE_HARD) {
        l->rc = refuse(l->w, name,
                       info->type == H5L_TYPE_SOFT
                           ? "is a soft link; links are not followed"
                           : "is a link to another file or of a foreign kind; not followed");
        return -1;
    }
    if (l->n == l->capacity) {
        int64_t capacity = 2 * l->capacity + 64;
        char **grown = realloc(l->name, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            l->rc = am_fail(AM_E_NOMEM, "out of memory for the names in %s", l->w->path);
            return -1;
        }
        l->name = grown;
        l->capacity = capacity;
    }
    l->name[l->n] = am_text("%s", name);
    if (l->name[l->n] == NULL) {
        l->rc = AM_E_NOMEM;
        return -1;
    }
    l->n++;
    return 0;
}

/* Each group is entered once: hard links can make loops. */
static int enter_group(walk *w, hid_t group)
{
    H5O_info_t info;
    if (H5Oget_info(group, &info) < 0) {
        return am_h5_fail(AM_E_DATA, "%s: cannot read a group", w->path);
    }
    for (int64_t i = 0; i < w->n_groups; i++) {
        if (w->group[i] == info.addr) {
            return am_fail(AM_E_DATA, "%s: a group is linked twice", w->path);
        }
    }
    if (w->n_groups == w->group_capacity) {
        int64_t capacity = 2 * w->group_capacity + 64;
        haddr_t *grown = realloc(w->group, (size_t)capacity * sizeof *grown);
        if (grown == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for the groups of %s", w->path);
        }
        w->group = grown;
        w->group_capacity = capacity;
    }
    w->group[w->n_groups++] = info.addr;
    return 0;
}

static int walk_group(walk *w, hid_t group, const char *prefix, int depth);

/* Name of the tensor behind a link: in our own files top-level names are escaped. */
static char *tensor_name(const walk *w, const char *prefix, const char *link)
{
    if (prefix[0] != '\0') {
        return am_text("%s/%s", prefix, link);
    }
    char *name = w->is_own ? am_h5_unescape(link) : NULL;
    return name != NULL ? name : am_text("%s", link);
}

static int read_object(walk *w, hid_t group, const char *prefix, const char *link, int depth)
{
    int rc = 0;
    char *name = NULL;
    hid_t object = H5Oopen(group, link, H5P_DEFAULT);
    if (object < 0) {
        return am_h5_fail(AM_E_DATA, "%s: cannot open %s", w->path, link);
    }
    H5I_type_t kind = H5Iget_type(object);
    if (kind == H5I_DATASET) {
        name = tensor_name(w, prefix, link);
        AM_TRY(name == NULL ? AM_E_NOMEM : 0);
        AM_TRY(read_dataset(w, name, object));
    } else if (kind == H5I_GROUP) {
        name = am_text("%s%s%s", prefix, prefix[0] != '\0' ? "/" : "", link);
        AM_TRY(name == NULL ? AM_E_NOMEM : 0);
        AM_TRY(walk_group(w, object, name, depth + 1));
    } else {
        rc = refuse(w, link, "is neither a group nor a dataset");
    }
cleanup:
    free(name);
    H5Oclose(object);
    return rc;
}

static int walk_group(walk *w, hid_t group, const char *prefix, int depth)
{
    links l = {.w = w};
    int rc = 0;
    if (depth > MAX_DEPTH || strlen(prefix) > AM_MAX_NAME) {
        return am_fail(AM_E_DATA, "%s: groups are nested deeper than %d", w->path, MAX_DEPTH);
    }
    AM_TRY(enter_group(w, group));
    herr_t done = H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, collect_link, &l);
    AM_TRY(l.rc);
    if (done < 0) {
        rc = am_h5_fail(AM_E_DATA, "%s: cannot list the group /%s", w->path, prefix);
        goto cleanup;
    }
    for (int64_t i = 0; i < l.n; i++) {
        AM_TRY(read_object(w, group, prefix, l.name[i], depth));
    }
cleanup:
    for (int64_t i = 0; i < l.n; i++) {
        free(l.name[i]);
    }
    free(l.name);
    return rc;
}

/* ---- metadata ---- */

/* A fixed-length string attribute; others are not metadata and are left alone. */
static int read_attribute(const walk *w, hid_t attribute, const char *name)
{
    int rc = 0;
    char *text = NULL;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool is_text = type >= 0 && space >= 0 && H5Tget_class(type) == H5T_STRING &&
                   H5Tis_variable_str(type) == 0 && H5Sget_simple_extent_npoints(space) == 1;
    bool is_mark = w->is_own && strcmp(name, AM_H5_MARK) == 0;
    if (!is_text || is_mark) {
        goto cleanup;
    }
    size_t size = H5Tget_size(type);
    if (size > largest_attribute || H5Aget_storage_size(attribute) > largest_attribute) {
        rc = refuse(w, name, "is too long an attribute");
        goto cleanup;
    }
    text = am_new((int64_t)size + 1, 1, "an attribute");
    if (text == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    if (H5Aread(attribute, type, text) < 0) {
        rc = am_h5_fail(AM_E_DATA, "%s: cannot read the attribute %s", w->path, name);
        goto cleanup;
    }
    AM_TRY(am_meta_set(&w->out->meta, w->is_own && name[0] == '%' ? name + 1 : name, text));
cleanup:
    free(text);
    if (type >= 0) {
        H5Tclose(type);
    }
    if (space >= 0) {
        H5Sclose(space);
    }
    return rc;
}

typedef struct attributes {
    const walk *w;
    int rc;
} attributes;

static herr_t visit_attribute(hid_t object, const char *name, const H5A_info_t *info, void *data)
{
    attributes *a = data;
    (void)info;
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0) {
        a->rc = am_h5_fail(AM_E_DATA, "%s: cannot open the attribute %s", a->w->path, name);
        return -1;
    }
    a->rc = read_attribute(a->w, attribute, name);
    H5Aclose(attribute);
    return a->rc != 0 ? -1 : 0;
}

static int read_metadata(const walk *w, hid_t root)
{
    attributes a = {.w = w};
    herr_t done = H5Aiterate2(root, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_attribute, &a);
    if (a.rc != 0 || done >= 0) {
        return a.rc;
    }
    return am_h5_fail(AM_E_DATA, "%s: cannot list its attributes", w->path);
}

/* ---- whole file ---- */

static int by_offset(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (x[0] > y[0]) - (x[0] < y[0]);
}

/* No two tensors share bytes, except one dataset under two names. */
static int check_overlap(const walk *w)
{
    const am_layout *l = w->out;
    int64_t n = 0;
    int64_t(*range)[2] = am_new(l->tensors.n + 1, sizeof *range, w->path);
    if (range == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < l->tensors.n; i++) {
        if ((l->extent[i].flags & AM_EXTENT_LIBRARY) == 0) {
            range[n][0] = l->extent[i].offset;
            range[n++][1] = l->extent[i].offset + am_tensor_bytes(&l->tensors.t[i]);
        }
    }
    qsort(range, (size_t)n, sizeof *range, by_offset);
    bool overlap = false;
    for (int64_t i = 1; i < n; i++) {
        bool is_same = range[i][0] == range[i - 1][0] && range[i][1] == range[i - 1][1];
        overlap |= range[i][0] < range[i - 1][1] && !is_same;
    }
    free(range);
    return overlap ? am_fail(AM_E_DATA, "%s: the data of two datasets overlaps", w->path) : 0;
}

static int has_user_block(hid_t file, bool *out)
{
    hsize_t bytes = 0;
    hid_t fcpl = H5Fget_create_plist(file);
    herr_t done = fcpl >= 0 ? H5Pget_userblock(fcpl, &bytes) : -1;
    if (fcpl >= 0) {
        H5Pclose(fcpl);
    }
    *out = bytes > 0;
    return done >= 0 ? 0 : am_h5_fail(AM_E_DATA, "cannot read the superblock");
}

/* Open the file of a walk; *file >= 0 is to be closed by end_walk, whatever is returned. */
static int begin_walk(walk *w, hid_t *file)
{
    struct stat st;
    *file = am_h5_open_read(w->path, AM_H5_CACHE_BYTES);
    if (*file < 0) {
        return am_h5_fail(AM_E_DATA, "%s is not a sound HDF5 file", w->path);
    }
    if (stat(w->path, &st) != 0) {
        return am_fail(AM_E_NOINPUT, "cannot find %s", w->path);
    }
    w->file_bytes = (int64_t)st.st_size;
    return has_user_block(*file, &w->has_user_block);
}

static int end_walk(const walk *w, hid_t file, int rc)
{
    if (file >= 0 && H5Fclose(file) < 0 && rc == 0) {
        rc = am_h5_fail(AM_E_IO, "cannot close %s", w->path);
    }
    return rc;
}

int am_h5_read_layout(const char *path, am_layout *out)
{
    int rc = 0;
    walk w = {.path = path, .out = out};
    hid_t root = -1, file = -1;
    AM_TRY(begin_walk(&w, &file));
    const int index = am_layout_add_file(out, "", w.file_bytes);
    AM_TRY(index < 0 ? index : 0);
    root = H5Gopen2(file, "/", H5P_DEFAULT);
    if (root < 0) {
        rc = am_h5_fail(AM_E_DATA, "%s: cannot open its root group", path);
        goto cleanup;
    }
    w.is_own = H5Aexists(root, AM_H5_MARK) > 0;
    AM_TRY(read_metadata(&w, root));
    AM_TRY(walk_group(&w, root, "", 0));
    AM_TRY(check_overlap(&w));
    AM_TRY(am_layout_finish(out));
cleanup:
    free(w.group);
    if (root >= 0) {
        H5Gclose(root);
    }
    return end_walk(&w, file, rc);
}

/* ---- some datasets of a file ---- */

static int read_named(walk *w, hid_t file, const char *name)
{
    H5O_info_t info, root;
    int rc = 0;
    hid_t dset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dset < 0) {
        return am_h5_fail(AM_E_DATA, "%s: cannot open %s", w->path, name);
    }
    if (H5Oget_info(dset, &info) < 0 || H5Oget_info(file, &root) < 0) {
        rc = am_h5_fail(AM_E_DATA, "%s: cannot read %s", w->path, name);
    } else if (info.fileno != root.fileno) {
        rc = refuse(w, name, "is a link to another file; not followed");
    } else {
        rc = read_dataset(w, name, dset);
    }
    H5Dclose(dset);
    return rc;
}

int am_h5_read_named(const char *path, const char *const *names, int n, am_layout *out)
{
    int rc = 0;
    walk w = {.path = path, .out = out};
    hid_t file = -1;
    AM_TRY(begin_walk(&w, &file));
    for (int i = 0; i < n; i++) {
        AM_TRY(read_named(&w, file, names[i]));
    }
    AM_TRY(am_layout_finish(out));
cleanup:
    return end_walk(&w, file, rc);
}
