/* Reading checkpoints: open, and a block source over the extents that announces its reads.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/dtype.h"
#include "io/file.h"
#include "io/checkpoint/format.h"
#include "io/commit/publish.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/rng.h"

/* A piece of every input of a merge stays in the second-level cache. */
enum { PIECE_BYTES = 128 << 10, DEFAULT_HELD_BYTES = 64 << 20 };

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

/* Spans in the order of their loads. */
typedef struct span_list {
    am_span *span; /* [n] a copy, owned */
    int64_t n, room;
    int64_t hint; /* span of the last load */
} span_list;

/* The `self` of a source. What was staged is read a piece at a time, so that loads may be small. */
struct reader {
    am_ckpt *ckpt;
    reader *next;
    span_list staged[2];   /* the last two batches */
    int64_t turns;         /* batches so far */
    am_span have;          /* what is in `piece`; tensor -1: nothing */
    unsigned char *piece;  /* [PIECE_BYTES] */
    unsigned char *bounce; /* [PIECE_BYTES] for what was not staged */

    span_list held;
    int64_t held_limit;
    int64_t *at;     /* [held.room] offset of each span in `kept`, -1: it did not fit */
    int64_t *filled; /* [held.room] elements of it that were read */
    am_arena kept;
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
        c->path = am_clean_path(path);
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
    free(r->staged[0].span);
    free(r->staged[1].span);
    free(r->held.span);
    free(r->at);
    free(r->filled);
    am_arena_destroy(&r->kept);
    free(r->piece);
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

/* Raw elements into dst, in host byte order, from the file. */
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

static int64_t element_bytes(const reader *r, int64_t tensor)
{
    return am_dtype_bytes(r->ckpt->layout.tensors.t[tensor].dtype);
}

/* ---- spans that will be loaded ---- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int copy_spans(span_list *list, const am_span *from, int64_t n)
{
    if (n > list->room) {
        free(list->span);
        *list = (span_list){.span = am_new(n, sizeof *list->span, "spans to read")};
        if (list->span == NULL) {
            return AM_E_NOMEM;
        }
        list->room = n;
    }
    if (n > 0) {
        memcpy(list->span, from, (size_t)n * sizeof *from);
    }
    list->n = n;
    list->hint = 0;
    return 0;
}

static bool contains(const am_span *span, int64_t tensor, int64_t lo, int64_t n)
{
    return span->tensor == tensor && lo >= span->lo && lo + n <= span->hi;
}

/* Span of the list that holds the elements, -1 if none. Loads mostly come in the order of the
 * spans, so with `near` only the last one and its successor are tried. */
static int64_t find_span(span_list *list, int64_t tensor, int64_t lo, int64_t n, bool near)
{
    int64_t steps = near && list->n > 2 ? 2 : list->n;
    for (int64_t step = 0; step < steps; step++) {
        int64_t i = list->hint + step < list->n ? list->hint + step : list->hint + step - list->n;
        if (contains(&list->span[i], tensor, lo, n)) {
            list->hint = i;
            return i;
        }
    }
    return -1;
}

static int source_stage(void *self, const am_span *spans, int64_t n)
{
    reader *r = self;
    const am_ckpt *c = r->ckpt;
    int rc = copy_spans(&r->staged[r->turns++ & 1], spans, n);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        const am_extent *e = &c->layout.extent[spans[i].tensor];
        const int64_t element = element_bytes(r, spans[i].tensor);
        if ((e->flags & AM_EXTENT_LIBRARY) == 0) {
            rc = need_file(r->ckpt, e->file);
            if (rc == 0) {
                am_file_announce(c->fd[e->file], e->offset + spans[i].lo * element,
                                 (spans[i].hi - spans[i].lo) * element);
            }
        }
    }
    return rc;
}

/* The staged span that holds the elements, NULL if none. */
static const am_span *find_staged(reader *r, int64_t tensor, int64_t lo, int64_t n)
{
    for (int k = 0; k < 4; k++) {
        span_list *list = &r->staged[k & 1];
        const int64_t i = find_span(list, tensor, lo, n, k < 2);
        if (i >= 0) {
            return &list->span[i];
        }
    }
    return NULL;
}

/* ---- spans that are kept ---- */

/* Offsets of the held spans, as many as fit. Returns the bytes needed. */
static int64_t place_held(reader *r)
{
    int64_t end = 0;
    for (int64_t i = 0; i < r->held.n; i++) {
        const am_span *span = &r->held.span[i];
        const int64_t bytes = (span->hi - span->lo) * element_bytes(r, span->tensor);
        const int64_t need = (bytes + AM_ALIGN - 1) / AM_ALIGN * AM_ALIGN;
        const bool fits = need <= r->held_limit - end;
        r->at[i] = fits ? end : -1;
        r->filled[i] = 0;
        end += fits ? need : 0;
    }
    return end;
}

static int grow_kept(reader *r, int64_t bytes)
{
    if (bytes > (int64_t)r->kept.capacity) {
        am_arena_destroy(&r->kept);
        return am_arena_create(&r->kept, (size_t)bytes, r->ckpt->path);
    }
    return 0;
}

static int source_hold(void *self, const am_span *spans, int64_t n)
{
    reader *r = self;
    const int64_t room = r->held.room;
    int rc = copy_spans(&r->held, spans, n);
    if (rc == 0 && r->held.room > room) {
        free(r->at);
        free(r->filled);
        r->at = am_new(r->held.room, sizeof *r->at, "spans to keep");
        r->filled = am_new(r->held.room, sizeof *r->filled, "spans to keep");
        rc = r->at != NULL && r->filled != NULL ? 0 : AM_E_NOMEM;
    }
    if (rc == 0) {
        rc = grow_kept(r, place_held(r));
    }
    if (rc != 0) { /* the tables do not fit each other */
        free(r->held.span);
        r->held = (span_list){0};
    }
    return rc;
}

/* The bytes that the next load will want, [at, at + n) up to end, on their way to the cache while
 * this load's are worked on: by turns with other inputs the processor does not see the stream. */
static void fetch_next(const unsigned char *from, int64_t at, int64_t n, int64_t end)
{
    enum { LINE = 64, MOST = 8 << 10 };
    const int64_t hi = least(end, at + least(n, MOST));
    for (; at < hi; at += LINE) {
        __builtin_prefetch(from + at);
    }
}

/* Elements [lo, lo+n) of held span i, which is read in order, some pieces ahead of the loads. */
static int get_held(reader *r, int64_t i, int64_t lo, int64_t n, const void **out)
{
    const am_span *span = &r->held.span[i];
    const int64_t element = element_bytes(r, span->tensor), done = r->filled[i];
    unsigned char *to = (unsigned char *)r->kept.base + r->at[i];
    const int64_t need = lo + n - span->lo;
    if (need > done) {
        const int64_t ahead = least(done + PIECE_BYTES / element, span->hi - span->lo);
        const int64_t end = need > ahead ? need : ahead;
        int rc = fetch(r, span->tensor, span->lo + done, end - done, to + done * element);
        if (rc != 0) {
            return rc;
        }
        r->filled[i] = end;
    }
    *out = to + (lo - span->lo) * element;
    fetch_next(to, need * element, n * element, r->filled[i] * element);
    return 0;
}

/* ---- loading ---- */

/* Elements [lo, lo+n), at most a piece, in host byte order; valid until the next call. */
static int get(reader *r, int64_t tensor, int64_t lo, int64_t n, const void **out)
{
    const int64_t element = element_bytes(r, tensor);
    if (contains(&r->have, tensor, lo, n)) {
        *out = r->piece + (lo - r->have.lo) * element;
        return 0;
    }
    const int64_t held = find_span(&r->held, tensor, lo, n, false);
    if (held >= 0 && r->at[held] >= 0) {
        return get_held(r, held, lo, n, out);
    }
    const am_span *span = find_staged(r, tensor, lo, n);
    if (span == NULL) {
        *out = r->bounce;
        return fetch(r, tensor, lo, n, r->bounce);
    }
    const int64_t hi = least(span->hi, lo + PIECE_BYTES / element);
    r->have.tensor = -1;
    int rc = fetch(r, tensor, lo, hi - lo, r->piece);
    if (rc == 0) {
        r->have = (am_span){.tensor = tensor, .lo = lo, .hi = hi};
    }
    *out = r->piece;
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
    const am_dtype dtype = r->ckpt->layout.tensors.t[tensor].dtype;
    const int64_t most = PIECE_BYTES / am_dtype_bytes(dtype);
    int rc = 0;
    for (int64_t at = 0; rc == 0 && at < n; at += most) {
        const int64_t step = least(n - at, most);
        const void *raw = NULL;
        rc = get(r, tensor, lo + at, step, &raw);
        if (rc == 0) {
            am_dtype_to_f64(dtype, raw, step, dst + at);
        }
    }
    return rc;
}

static int source_load_raw(void *self, int64_t tensor, int64_t lo, int64_t n, void *dst)
{
    reader *r = self;
    check_range(r, tensor, lo, n);
    return n == 0 ? 0 : fetch(r, tensor, lo, n, dst);
}

static int source_borrow(void *self, int64_t tensor, int64_t lo, int64_t n, const void **raw)
{
    reader *r = self;
    check_range(r, tensor, lo, n);
    AM_ASSERT(n <= AM_BORROW);
    return get(r, tensor, lo, n, raw);
}

int am_ckpt_source(am_ckpt *ckpt, int64_t held_bytes, am_source *out)
{
    reader *r = am_new(1, sizeof *r, "a checkpoint source");
    unsigned char *piece = aligned_alloc(AM_ALIGN, PIECE_BYTES);
    unsigned char *bounce = aligned_alloc(AM_ALIGN, PIECE_BYTES);
    if (r == NULL || piece == NULL || bounce == NULL) {
        free(r);
        free(piece);
        free(bounce);
        return am_fail(AM_E_NOMEM, "out of memory for reading %s", ckpt->path);
    }
    r->ckpt = ckpt;
    r->piece = piece;
    r->bounce = bounce;
    r->have.tensor = -1;
    r->held_limit = held_bytes > 0 ? held_bytes : DEFAULT_HELD_BYTES;
    r->next = ckpt->readers;
    ckpt->readers = r;
    *out = (am_source){.self = r,
                       .label = ckpt->path,
                       .tensors = &ckpt->layout.tensors,
                       .stage = source_stage,
                       .hold = source_hold,
                       .load = source_load,
                       .load_raw = source_load_raw,
                       .borrow = source_borrow};
    return 0;
}
