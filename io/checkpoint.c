/* Reading checkpoints: open, and a block source with read-ahead over the extents.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/dtype.h"
#include "io/file.h"
#include "io/format.h"
#include "io/publish.h"
#include "io/worker.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/rng.h"

enum { BOUNCE_BYTES = 1 << 20, DEFAULT_BUFFER_BYTES = 64 << 20 };

typedef struct reader reader;

struct am_ckpt {
    char *path;
    const am_format *format;
    am_layout layout;
    char **file_path; /* [n_files] owned */
    int *fd;          /* [n_files], -1: not opened yet */
    void **library;   /* [n_files], NULL: not opened yet */
    reader *readers;
};

/* One half of the staging buffer: spans read by one job on the I/O thread, in their order. */
typedef struct slot {
    am_work work;
    reader *owner;
    am_span *spans;  /* [n] a copy: the I/O thread may outlive the caller's when a job fails */
    int64_t n, hint; /* hint: span of the last load */
    int64_t *at;     /* [n] offset in buffer, -1: did not fit, read directly */
    int64_t at_capacity;
    unsigned char *buffer;
    int64_t capacity;
} slot;

struct reader { /* the `self` of a source */
    am_ckpt *ckpt;
    reader *next;
    am_worker *worker; /* NULL until the first stage */
    int64_t half_bytes, turns;
    slot slots[2];
    unsigned char *bounce; /* [BOUNCE_BYTES] */
};

/* ---- open and close ---- */

static int read_layout(const char *path, const am_format **format, char **bytes, int64_t *n)
{
    int rc = 0;
    am_layout layout = {0};
    *format = am_format_of_input(path, &rc);
    if (*format == NULL) {
        return rc;
    }
    AM_TRY((*format)->read_layout(path, &layout));
    AM_TRY(am_layout_pack(&layout, bytes, n));
cleanup:
    am_layout_free(&layout);
    return rc;
}

static int prepare_files(am_ckpt *c)
{
    int64_t n = c->layout.n_files;
    c->file_path = am_new(n + 1, sizeof *c->file_path, c->path);
    c->fd = am_new(n + 1, sizeof *c->fd, c->path);
    c->library = am_new(n + 1, sizeof *c->library, c->path);
    for (int64_t f = 0; c->fd != NULL && f < n; f++) {
        c->fd[f] = -1;
    }
    if (c->file_path == NULL || c->fd == NULL || c->library == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t f = 0; f < n; f++) {
        c->file_path[f] = am_layout_path(&c->layout, c->path, f);
        if (c->file_path[f] == NULL) {
            return AM_E_NOMEM;
        }
    }
    return 0;
}

int am_ckpt_open_all(MPI_Comm comm, const char *path, am_ckpt **out)
{
    int rc = 0, rank;
    const am_format *format = NULL;
    char *bytes = NULL;
    int64_t n = 0, name_bytes = 0;
    char *name = NULL;
    am_ckpt *c = NULL;
    MPI_Comm_rank(comm, &rank);
    AM_TRY(am_same_all(comm, am_hash64(path, (int64_t)strlen(path), 0), "am_ckpt_open_all: path"));
    int made = rank == 0 ? read_layout(path, &format, &bytes, &n) : 0;
    AM_TRY(am_share_bytes_all(comm, 0, made, &bytes, &n));
    name = rank == 0 ? am_text("%s", format->name) : NULL;
    name_bytes = name != NULL ? (int64_t)strlen(name) : 0;
    made = rank == 0 && name == NULL ? AM_E_NOMEM : 0;
    AM_TRY(am_share_bytes_all(comm, 0, made, &name, &name_bytes));
    c = am_new(1, sizeof *c, path);
    rc = c == NULL ? AM_E_NOMEM : 0;
    if (rc == 0) {
        c->format = am_format_find(name);
        c->path = am_publish_clean_path(path);
        rc = c->path == NULL ? AM_E_NOMEM : 0;
    }
    AM_KEEP(am_layout_unpack(bytes, n, &c->layout));
    AM_KEEP(prepare_files(c));
    AM_AGREE(comm);
    *out = c;
    c = NULL;
cleanup:
    free(bytes);
    free(name);
    am_ckpt_close(&c);
    return rc;
}

static void free_reader(reader *r)
{
    am_worker_stop(&r->worker);
    for (int i = 0; i < 2; i++) {
        free(r->slots[i].at);
        free(r->slots[i].spans);
        free(r->slots[i].buffer);
    }
    free(r->bounce);
    free(r);
}

void am_ckpt_close(am_ckpt **ckpt)
{
    am_ckpt *c = *ckpt;
    if (c == NULL) {
        return;
    }
    while (c->readers != NULL) {
        reader *r = c->readers;
        c->readers = r->next;
        free_reader(r);
    }
    for (int64_t f = 0; f < c->layout.n_files; f++) {
        if (c->fd != NULL && c->fd[f] >= 0) {
            close(c->fd[f]);
        }
        if (c->library != NULL && c->library[f] != NULL) {
            c->format->library_close(c->library[f]);
        }
        free(c->file_path != NULL ? c->file_path[f] : NULL);
    }
    free(c->file_path);
    free(c->fd);
    free(c->library);
    am_layout_free(&c->layout);
    free(c->path);
    free(c);
    *ckpt = NULL;
}

const am_tensor_table *am_ckpt_tensors(const am_ckpt *ckpt)
{
    return &ckpt->layout.tensors;
}

const am_meta *am_ckpt_meta(const am_ckpt *ckpt)
{
    return &ckpt->layout.meta;
}

const char *am_ckpt_path(const am_ckpt *ckpt)
{
    return ckpt->path;
}

const char *am_ckpt_format(const am_ckpt *ckpt)
{
    return ckpt->format->name;
}

/* ---- extents ---- */

static int need_file(am_ckpt *c, int64_t f)
{
    if (c->fd[f] >= 0) {
        return 0;
    }
    int64_t bytes = 0;
    int fd = am_file_open(c->file_path[f], &bytes);
    if (fd < 0) {
        return fd;
    }
    if (bytes != c->layout.files[f].bytes) {
        close(fd);
        return am_fail(AM_E_IO, "%s has %" PRId64 " bytes here, %" PRId64 " when it was opened",
                       c->file_path[f], bytes, c->layout.files[f].bytes);
    }
    c->fd[f] = fd;
    return 0;
}

static int need_library(am_ckpt *c, int64_t f)
{
    return c->library[f] != NULL ? 0 : c->format->library_open(c->file_path[f], &c->library[f]);
}

/* Bytes of elements [lo, lo+n) as they are in the file; the file is open. */
static int read_extent(const am_ckpt *c, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    const am_extent *e = &c->layout.extent[tensor];
    int64_t element = am_dtype_bytes(c->layout.tensors.t[tensor].dtype);
    return am_file_read(c->fd[e->file], c->file_path[e->file], dst, n * element,
                        e->offset + lo * element);
}

static bool is_staged_kind(const am_ckpt *c, int64_t tensor)
{
    return (c->layout.extent[tensor].flags & AM_EXTENT_LIBRARY) == 0;
}

/* ---- staging: runs on the I/O thread ---- */

static int read_slot(am_work *work)
{
    slot *s = (slot *)work; /* its first member */
    const am_ckpt *c = s->owner->ckpt;
    for (int64_t i = 0; i < s->n; i++) {
        if (s->at[i] >= 0) {
            const am_span *span = &s->spans[i];
            int rc =
                read_extent(c, span->tensor, span->lo, span->hi - span->lo, s->buffer + s->at[i]);
            if (rc != 0) {
                return rc;
            }
            am_worker_step(s->owner->worker, work, i + 1);
        }
    }
    return 0;
}

/* Offsets of the spans in the buffer, as many as fit. Returns the bytes needed. */
static int64_t plan_slot(slot *s, int64_t limit)
{
    int64_t at = 0;
    const am_ckpt *c = s->owner->ckpt;
    for (int64_t i = 0; i < s->n; i++) {
        const am_span *span = &s->spans[i];
        int64_t element = am_dtype_bytes(c->layout.tensors.t[span->tensor].dtype);
        int64_t bytes = (span->hi - span->lo) * element;
        int64_t need = (bytes + AM_ALIGN - 1) / AM_ALIGN * AM_ALIGN;
        bool fits = is_staged_kind(c, span->tensor) && need <= limit - at;
        s->at[i] = fits ? at : -1;
        at += fits ? need : 0;
    }
    return at;
}

static int grow_slot(slot *s, int64_t n, int64_t bytes)
{
    if (n > s->at_capacity) {
        free(s->at);
        free(s->spans);
        s->at_capacity = 0;
        s->at = am_new(n, sizeof *s->at, "read-ahead");
        s->spans = am_new(n, sizeof *s->spans, "read-ahead");
        if (s->at == NULL || s->spans == NULL) {
            return AM_E_NOMEM;
        }
        s->at_capacity = n;
    }
    if (bytes > s->capacity) {
        free(s->buffer);
        s->capacity = 0;
        s->buffer = aligned_alloc(AM_ALIGN, (size_t)bytes);
        if (s->buffer == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for %" PRId64 " bytes of read-ahead", bytes);
        }
        s->capacity = bytes;
    }
    return 0;
}

static int source_stage(void *self, const am_span *spans, int64_t n)
{
    reader *r = self;
    slot *s = &r->slots[r->turns++ & 1];
    int rc = 0;
    if (r->worker == NULL) {
        AM_TRY(am_worker_start(&r->worker));
    }
    /* A failure of spans that nobody loaded is nobody's failure: wait without the message. */
    am_worker_wait_for(r->worker, &s->work, INT64_MAX);
    s->n = 0;
    for (int64_t i = 0; i < n; i++) {
        if (is_staged_kind(r->ckpt, spans[i].tensor)) {
            AM_TRY(need_file(r->ckpt, r->ckpt->layout.extent[spans[i].tensor].file));
        }
    }
    AM_TRY(grow_slot(s, n, 0));
    if (n > 0) {
        memcpy(s->spans, spans, (size_t)n * sizeof *spans);
    }
    s->n = n;
    s->hint = 0;
    int64_t bytes = plan_slot(s, r->half_bytes);
    rc = grow_slot(s, n, bytes);
    if (rc != 0) {
        s->n = 0;
        goto cleanup;
    }
    s->work.run = read_slot;
    am_worker_submit(r->worker, &s->work);
cleanup:
    return rc;
}

/* Span of the slot that holds the elements, -1 if none. Loads mostly come in the order of the
 * spans, so with `near` only the last one and its successor are tried. */
static int64_t find_span(const slot *s, int64_t tensor, int64_t lo, int64_t n, bool near)
{
    int64_t steps = near && s->n > 2 ? 2 : s->n;
    for (int64_t step = 0; step < steps; step++) {
        int64_t i = s->hint + step < s->n ? s->hint + step : s->hint + step - s->n;
        const am_span *span = &s->spans[i];
        if (span->tensor == tensor && lo >= span->lo && lo + n <= span->hi) {
            return i;
        }
    }
    return -1;
}

/* Staged bytes of the elements, or NULL if they are not staged; waits for them. */
static int find_staged(reader *r, int64_t tensor, int64_t lo, int64_t n, const void **out)
{
    *out = NULL;
    for (int k = 0; k < 4; k++) {
        slot *s = &r->slots[k & 1];
        int64_t i = find_span(s, tensor, lo, n, k < 2);
        if (i < 0) {
            continue;
        }
        s->hint = i;
        if (s->at[i] < 0) {
            return 0;
        }
        am_worker_wait_for(r->worker, &s->work, i + 1);
        if (s->work.progress < i + 1) { /* ended before this span: it failed */
            return am_worker_wait(r->worker, &s->work);
        }
        int64_t element = am_dtype_bytes(r->ckpt->layout.tensors.t[tensor].dtype);
        *out = s->buffer + s->at[i] + (lo - s->spans[i].lo) * element;
        return 0;
    }
    return 0;
}

/* ---- loading ---- */

/* Raw elements into dst, in host byte order, from wherever they are. */
static int fetch(reader *r, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    am_ckpt *c = r->ckpt;
    const am_tensor *t = &c->layout.tensors.t[tensor];
    const am_extent *e = &c->layout.extent[tensor];
    int rc = 0;
    if (e->flags & AM_EXTENT_LIBRARY) {
        AM_TRY(need_library(c, e->file));
        AM_TRY(c->format->library_read(c->library[e->file], e, t, lo, n, dst));
    } else {
        AM_TRY(need_file(c, e->file));
        AM_TRY(read_extent(c, tensor, lo, n, dst));
    }
    if (e->flags & AM_EXTENT_SWAPPED) {
        am_dtype_swap(t->dtype, dst, n);
    }
cleanup:
    return rc;
}

static void check_range(const reader *r, int64_t tensor, int64_t lo, int64_t n)
{
    const am_tensor_table *table = &r->ckpt->layout.tensors;
    AM_ASSERT(tensor >= 0 && tensor < table->n);
    AM_ASSERT(lo >= 0 && n >= 0 && n <= table->t[tensor].numel - lo);
}

static int source_load(void *self, int64_t tensor, int64_t lo, int64_t n, double *dst)
{
    reader *r = self;
    check_range(r, tensor, lo, n);
    am_dtype dtype = r->ckpt->layout.tensors.t[tensor].dtype;
    bool is_swapped = (r->ckpt->layout.extent[tensor].flags & AM_EXTENT_SWAPPED) != 0;
    const void *staged = NULL;
    int rc = find_staged(r, tensor, lo, n, &staged);
    if (rc == 0 && staged != NULL && !is_swapped) {
        am_dtype_to_f64(dtype, staged, n, dst);
        return 0;
    }
    int64_t element = am_dtype_bytes(dtype), most = BOUNCE_BYTES / element;
    for (int64_t at = 0; rc == 0 && at < n; at += most) {
        int64_t step = n - at < most ? n - at : most;
        if (staged != NULL) {
            memcpy(r->bounce, (const char *)staged + at * element, (size_t)(step * element));
            am_dtype_swap(dtype, r->bounce, step);
        } else {
            rc = fetch(r, tensor, lo + at, step, r->bounce);
        }
        if (rc == 0) {
            am_dtype_to_f64(dtype, r->bounce, step, dst + at);
        }
    }
    return rc;
}

static int source_load_raw(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    reader *r = self;
    check_range(r, tensor, lo, n);
    const am_tensor *t = &r->ckpt->layout.tensors.t[tensor];
    const void *staged = NULL;
    int rc = find_staged(r, tensor, lo, n, &staged);
    if (rc != 0 || n == 0) {
        return rc;
    }
    if (staged == NULL) {
        return fetch(r, tensor, lo, n, dst);
    }
    memcpy(dst, staged, (size_t)(n * am_dtype_bytes(t->dtype)));
    if (r->ckpt->layout.extent[tensor].flags & AM_EXTENT_SWAPPED) {
        am_dtype_swap(t->dtype, dst, n);
    }
    return 0;
}

int am_ckpt_source(am_ckpt *ckpt, int64_t buffer_bytes, am_source *out)
{
    reader *r = am_new(1, sizeof *r, "a checkpoint source");
    unsigned char *bounce = aligned_alloc(AM_ALIGN, BOUNCE_BYTES);
    if (r == NULL || bounce == NULL) {
        free(r);
        free(bounce);
        return am_fail(AM_E_NOMEM, "out of memory for reading %s", ckpt->path);
    }
    r->ckpt = ckpt;
    r->bounce = bounce;
    r->half_bytes = (buffer_bytes > 0 ? buffer_bytes : DEFAULT_BUFFER_BYTES) / 2;
    for (int i = 0; i < 2; i++) {
        r->slots[i].owner = r;
    }
    r->next = ckpt->readers;
    ckpt->readers = r;
    *out = (am_source){.self = r,
                       .label = ckpt->path,
                       .tensors = &ckpt->layout.tensors,
                       .stage = source_stage,
                       .load = source_load,
                       .load_raw = source_load_raw};
    return 0;
}
