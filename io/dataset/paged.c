/* A page is as many samples as fit its size, of one dataset of the file; chunks of HDF5 are not
 * divided. Contiguous data is read at its offset by either thread; what only the library can read
 * waits until the owner asks for it, since the library is not for threads.
 *
 *     page number     | train/x | validation/x | test/x | train/y | validation/y | test/y |
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/paged.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/checkpoint/layout.h"
#include "io/dtype.h"
#include "io/file.h"
#include "io/hdf5/h5_read.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/param.h"

enum { ARRAYS = 2 * AM_SPLITS, LABELS = AM_SPLITS, PAGE_BYTES = 16 << 10 };

/* One dataset of the file. */
typedef struct array {
    char label[32];   /* "train/x" */
    am_tensor tensor; /* as it is stored */
    am_extent extent;
    void *library;      /* owned handle; NULL: at its offset */
    int64_t rows;       /* samples */
    int64_t width;      /* values of one */
    int64_t row_bytes;  /* of one in a page */
    int64_t together;   /* samples that the file does not divide */
    int64_t page_rows;  /* of a page */
    int64_t first_page; /* its number */
} array;

/* What a file is known by while it is used. */
typedef struct identity {
    int64_t bytes, seconds, nanoseconds; /* of the last change */
} identity;

struct am_paged {
    char *path; /* owned */
    int fd;
    identity identity;
    bool is_text;
    int64_t classes;
    int n;               /* arrays */
    array array[ARRAYS]; /* inputs (or tokens), then labels */
    am_pages *pages;     /* owned */
    int64_t *ahead;      /* [ahead_capacity] owned: pages to announce */
    int64_t ahead_capacity;
};

/* ---- one page ---- */

static const array *array_of(const am_paged *p, int64_t page)
{
    int i = p->n - 1;
    while (page < p->array[i].first_page) {
        i--;
    }
    return &p->array[i];
}

static int check_identity(const am_paged *p)
{
    struct stat st;
    if (fstat(p->fd, &st) != 0) {
        return am_fail(AM_E_IO, "cannot stat %s", p->path);
    }
    return (int64_t)st.st_size == p->identity.bytes &&
                   (int64_t)st.st_mtim.tv_sec == p->identity.seconds &&
                   (int64_t)st.st_mtim.tv_nsec == p->identity.nanoseconds
               ? 0
               : am_fail(AM_E_DATA,
                         "%s has changed while it was in use: leave data sets alone until the job "
                         "is done, and start it over with the new one",
                         p->path);
}

/* Samples [lo, lo + n) as they are stored, in the byte order of this machine. */
static int read_rows(const am_paged *p, const array *a, int64_t lo, int64_t n, void *to)
{
    const int64_t values = n * a->width, bytes = am_dtype_bytes(a->tensor.dtype);
    int rc = 0;
    if (a->library != NULL) {
        rc = am_h5_library_read(a->library, &a->extent, &a->tensor, lo * a->width, values, to);
    } else {
        rc = am_file_read(p->fd, p->path, to, values * bytes,
                          a->extent.offset + lo * a->width * bytes);
    }
    const int changed = check_identity(p); /* tells more than what follows from it */
    if (rc != 0 && changed != 0) {
        am_error_clear();
        return check_identity(p);
    }
    if (rc == 0 && (a->extent.flags & AM_EXTENT_SWAPPED) != 0) {
        am_dtype_swap(a->tensor.dtype, to, values);
    }
    return rc != 0 ? rc : changed;
}

/* Labels as they are stored to int32. */
static int convert_labels(const am_paged *p, const array *a, int64_t lo, int64_t n,
                          const void *from, int32_t *to)
{
    int rc = 0;
    double *wide = am_new(n, sizeof *wide, "labels");
    if (wide == NULL) {
        return AM_E_NOMEM;
    }
    am_dtype_to_f64(a->tensor.dtype, from, n, wide); /* exact up to 2^53, far above any label */
    for (int64_t i = 0; i < n && rc == 0; i++) {
        rc = am_dataset_check_label(p->path, a->label, lo + i, wide[i], p->classes);
        to[i] = rc == 0 ? (int32_t)wide[i] : 0;
    }
    free(wide);
    return rc;
}

/* am_page_source.fetch */
static int fetch(void *self, int64_t page, void *to)
{
    const am_paged *p = self;
    const array *a = array_of(p, page);
    const bool is_label = a - p->array >= LABELS;
    const int64_t lo = (page - a->first_page) * a->page_rows;
    const int64_t n = a->rows - lo < a->page_rows ? a->rows - lo : a->page_rows;
    const int64_t stored = a->width * am_dtype_bytes(a->tensor.dtype);
    const bool is_same = !is_label && stored == a->row_bytes;
    int rc = 0;
    void *raw = is_same ? to : am_new(n, (size_t)stored, "samples of a data set");
    if (raw == NULL) {
        return AM_E_NOMEM;
    }
    AM_TRY(read_rows(p, a, lo, n, raw));
    if (is_label) {
        AM_TRY(convert_labels(p, a, lo, n, raw, to));
    } else if (p->is_text) {
        AM_TRY(am_dataset_check_tokens(p->path, a->label, lo, n, a->width, to, p->classes));
    } else if (a->tensor.dtype != AM_DTYPE_U8) {
        if (!is_same) {
            am_dtype_to_f32(a->tensor.dtype, raw, n * a->width, to);
        }
        AM_TRY(am_dataset_check_floats(p->path, a->label, lo, n, a->width, to));
    }
cleanup:
    if (!is_same) {
        free(raw);
    }
    return rc;
}

/* am_page_source.may_read_ahead */
static bool may_read_ahead(const void *self, int64_t page)
{
    return array_of(self, page)->library == NULL;
}

/* ---- samples ---- */

static int64_t page_of(const array *a, int64_t index)
{
    return a->first_page + index / a->page_rows;
}

static int get_row(am_paged *p, const array *a, int64_t index, const unsigned char **row)
{
    const void *bytes = NULL;
    const int rc = am_pages_get(p->pages, page_of(a, index), &bytes);
    *row = rc == 0 ? (const unsigned char *)bytes + index % a->page_rows * a->row_bytes : NULL;
    return rc;
}

int am_paged_sample(am_paged *p, am_split split, int64_t index, const void **x, int32_t *label)
{
    const unsigned char *row = NULL;
    int rc = 0;
    if (label != NULL) {
        rc = get_row(p, &p->array[LABELS + (int)split], index, &row);
        if (rc == 0) {
            memcpy(label, row, sizeof *label);
        }
    }
    AM_KEEP(get_row(p, &p->array[split], index, &row));
    *x = row;
    return rc;
}

void am_paged_announce(am_paged *p, am_split split, const int64_t *index, int64_t count,
                       int64_t first)
{
    const int each = p->is_text ? 1 : 2;
    if (p->ahead_capacity < each * count) {
        int64_t *grown = realloc(p->ahead, (size_t)(each * count) * sizeof *grown);
        if (grown == NULL) {
            return; /* only what is announced */
        }
        p->ahead = grown;
        p->ahead_capacity = each * count;
    }
    for (int64_t i = 0; i < count; i++) {
        for (int k = 0; k < each; k++) {
            p->ahead[each * i + k] = page_of(&p->array[k * LABELS + (int)split], first + index[i]);
        }
    }
    am_pages_announce(p->pages, p->ahead, each * count);
}

/* ---- open and close ---- */

/* What rank 0 finds out; all ranks get it. */
typedef struct finding {
    identity identity;
    struct {
        int dtype, ndim;
        int64_t shape[AM_MAX_DIMS], numel;
        am_extent extent;
    } array[ARRAYS];
} finding;

static int find_identity(const am_paged *p, identity *out)
{
    struct stat st;
    if (fstat(p->fd, &st) != 0) {
        return am_fail(AM_E_IO, "cannot stat %s", p->path);
    }
    *out = (identity){(int64_t)st.st_size, (int64_t)st.st_mtim.tv_sec, (int64_t)st.st_mtim.tv_nsec};
    return 0;
}

/* Rank 0: where the arrays lie. */
static int find_arrays(const am_paged *p, finding *out)
{
    const char *name[ARRAYS];
    am_layout layout = {0};
    for (int i = 0; i < p->n; i++) {
        name[i] = p->array[i].label;
    }
    int rc = find_identity(p, &out->identity);
    AM_KEEP(am_h5_read_named(p->path, name, p->n, &layout));
    for (int i = 0; i < p->n && rc == 0; i++) {
        const int64_t k = am_tensor_table_find(&layout.tensors, name[i]);
        const am_tensor *t = &layout.tensors.t[k];
        out->array[i].dtype = (int)t->dtype;
        out->array[i].ndim = t->ndim;
        out->array[i].numel = t->numel;
        memcpy(out->array[i].shape, t->shape, sizeof t->shape);
        out->array[i].extent = layout.extent[k];
    }
    am_layout_free(&layout);
    return rc;
}

static void use_finding(am_paged *p, const finding *found)
{
    p->identity = found->identity;
    for (int i = 0; i < p->n; i++) {
        array *a = &p->array[i];
        a->tensor = (am_tensor){.name = a->label,
                                .dtype = (am_dtype)found->array[i].dtype,
                                .ndim = found->array[i].ndim,
                                .numel = found->array[i].numel};
        memcpy(a->tensor.shape, found->array[i].shape, sizeof a->tensor.shape);
        a->extent = found->array[i].extent;
    }
}

static array array_make(const am_dataset_raw *raw, int number)
{
    const int split = number % AM_SPLITS;
    const bool is_label = number >= LABELS;
    const am_dataset_part *part = &raw->part[split];
    array a = {.rows = part->n, .width = is_label ? 1 : am_dataset_width(raw)};
    (void)snprintf(a.label, sizeof a.label, "%s/%s", am_dataset_split_name[split],
                   raw->is_text ? "tokens"
                   : is_label   ? "y"
                                : "x");
    a.row_bytes = is_label ? (int64_t)sizeof(int32_t) : a.width * part->value_bytes;
    a.together = is_label ? part->y_rows : part->x_rows;
    return a;
}

static int64_t page_bytes_of(const array *a, int n)
{
    int64_t bytes = PAGE_BYTES;
    for (int i = 0; i < n; i++) {
        const int64_t least = a[i].together * a[i].row_bytes;
        bytes = least > bytes ? least : bytes;
    }
    return bytes;
}

int64_t am_paged_fewest_bytes(const am_dataset_raw *raw)
{
    array a[ARRAYS];
    const int n = raw->is_text ? AM_SPLITS : ARRAYS;
    for (int i = 0; i < n; i++) {
        a[i] = array_make(raw, i);
    }
    return AM_PAGES_FEWEST * page_bytes_of(a, n);
}

static int describe(am_paged *p, const char *path, const am_dataset_raw *raw)
{
    p->fd = -1;
    p->is_text = raw->is_text;
    p->classes = raw->classes;
    p->n = raw->is_text ? AM_SPLITS : ARRAYS;
    p->path = am_text("%s", path);
    for (int i = 0; i < p->n; i++) {
        p->array[i] = array_make(raw, i);
    }
    return p->path == NULL ? AM_E_NOMEM : 0;
}

/* Number the pages; what only the library reads is opened. */
static int make_pages(am_paged *p, int64_t bytes)
{
    const am_page_source source = {.self = p,
                                   .page_bytes = page_bytes_of(p->array, p->n),
                                   .fetch = fetch,
                                   .may_read_ahead = may_read_ahead};
    int64_t page = 0;
    int rc = 0;
    if (bytes < AM_PAGES_FEWEST * source.page_bytes) {
        return am_fail(AM_E_NOMEM, "%s: %s of memory for its samples are too little, it takes %s",
                       p->path, am_format_bytes(bytes),
                       am_format_bytes(AM_PAGES_FEWEST * source.page_bytes));
    }
    for (int i = 0; i < p->n && rc == 0; i++) {
        array *a = &p->array[i];
        a->page_rows = source.page_bytes / (a->together * a->row_bytes) * a->together;
        a->first_page = page;
        page += (a->rows + a->page_rows - 1) / a->page_rows;
        if ((a->extent.flags & AM_EXTENT_LIBRARY) != 0) {
            rc = am_h5_library_open_bare(p->path, &a->library);
        }
    }
    return rc == 0 ? am_pages_make(&source, bytes, &p->pages) : rc;
}

int am_paged_open_all(MPI_Comm comm, const char *path, const am_dataset_raw *raw, int64_t bytes,
                      am_paged **out)
{
    finding found = {0};
    int rc = 0, rank = 0;
    am_paged *p = am_new(1, sizeof *p, "a data set");
    *out = NULL;
    AM_KEEP(p == NULL ? AM_E_NOMEM : describe(p, path, raw));
    AM_KEEP(MPI_Comm_rank(comm, &rank) == MPI_SUCCESS ? 0 : am_fail(AM_E_BUG, "MPI_Comm_rank"));
    if (rc == 0) {
        p->fd = am_file_open(path, NULL);
        rc = p->fd < 0 ? p->fd : 0;
    }
    if (rc == 0 && rank == 0) {
        rc = find_arrays(p, &found);
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, &found, (int64_t)sizeof found));
    use_finding(p, &found);
    AM_KEEP(check_identity(p));
    AM_KEEP(rc == 0 ? make_pages(p, bytes) : rc);
    AM_AGREE(comm);
    *out = p;
    p = NULL;
cleanup:
    am_paged_close(&p);
    return rc;
}

void am_paged_close(am_paged **paged)
{
    am_paged *p = *paged;
    if (p == NULL) {
        return;
    }
    am_pages_free(&p->pages); /* ends the reader */
    for (int i = 0; i < p->n; i++) {
        if (p->array[i].library != NULL) {
            am_h5_library_close(p->array[i].library);
        }
    }
    if (p->fd >= 0) {
        (void)close(p->fd);
    }
    free(p->ahead);
    free(p->path);
    free(p);
    *paged = NULL;
}
