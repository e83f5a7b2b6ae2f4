/* A block sink over the extents of an output: buffered writes, digests, records of what is done.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "io/commit/writer.h"
#include "io/dtype.h"
#include "io/file.h"
#include "mpi/clock.h"
#include "mpi/error.h"
#include "mpi/partition.h"

/* What was written is sent to the disk so many bytes at a time, so that little is left to the sync
 * at the end. */
enum { WRITE_BACK_BYTES = 8 << 20 };

/* The blocks that end in [lo, lo + n) of a tensor are done if their digests are known: each element
 * is stored once. Their records wait until the buffer is written and synced. */
static int note_blocks(am_ckpt_writer *w, int64_t tensor, int64_t lo, int64_t n)
{
    int rc = 0;
    const int64_t numel = w->layout.tensors.t[tensor].numel;
    for (int64_t b = lo / AM_BLOCK; rc == 0 && b * AM_BLOCK < lo + n; b++) {
        const int64_t end = (b + 1) * AM_BLOCK < numel ? (b + 1) * AM_BLOCK : numel;
        const int64_t unit = w->digests.first[tensor] + b;
        if (end <= lo + n && w->digests.known[unit] != 0) {
            rc = am_journal_add(&w->journal, unit, (uint64_t)w->digests.value[unit]);
        }
    }
    return rc;
}

int am_writer_save(am_ckpt_writer *w)
{
    const double start = am_seconds();
    int rc = 0;
    for (int64_t f = 0; rc == 0 && f < w->layout.n_files; f++) {
        if (w->is_dirty[f] && fdatasync(w->fd[f]) != 0) {
            rc = am_fail_errno(AM_E_IO, errno, "cannot sync %s", w->file_path[f]);
        }
        w->is_dirty[f] = false;
    }
    AM_KEEP(am_journal_save(&w->journal));
    am_pace_saved(&w->journal.pace, start);
    return rc;
}

/* Send the bytes to the disk when they are many, without waiting for it. */
static void write_back(am_ckpt_writer *w)
{
    am_file_range *r = &w->written;
    if (r->file != w->piece.file || r->at + r->n != w->piece.at) {
        *r = (am_file_range){.file = w->piece.file, .at = w->piece.at};
    }
    r->n += w->piece.n;
    if (r->n >= WRITE_BACK_BYTES) {
        am_file_write_back(w->fd[r->file], r->at, r->n);
        *r = (am_file_range){.file = r->file, .at = r->at + r->n};
    }
}

int am_writer_put_out(am_ckpt_writer *w)
{
    am_file_range *p = &w->piece;
    if (p->n > 0 && w->failed == 0) {
        w->is_dirty[p->file] = true;
        w->failed = am_file_write(w->fd[p->file], w->file_path[p->file], w->buffer, p->n, p->at);
        write_back(w);
    }
    *p = (am_file_range){.file = p->file, .at = p->at + p->n};
    if (w->failed == 0 && w->journal.n > 0 && am_pace_is_due(&w->journal.pace)) {
        w->failed = am_writer_save(w);
    }
    return w->failed;
}

/* Make the buffer go on at element lo of a tensor, with room for at least one. */
static int turn_to(am_ckpt_writer *w, const am_extent *e, int64_t lo, int64_t element)
{
    const int64_t at = e->offset + lo * element;
    const am_file_range *p = &w->piece;
    const bool follows = p->file == e->file && p->at + p->n == at && p->n % element == 0;
    int rc = w->failed;
    if (rc == 0 && (!follows || w->piece_bytes - p->n < element)) {
        rc = am_writer_put_out(w);
        w->piece = (am_file_range){.file = e->file, .at = at};
    }
    return rc;
}

static int store(am_ckpt_writer *w, int64_t tensor, int64_t lo, int64_t n, const void *raw,
                 const double *real)
{
    AM_ASSERT(tensor >= 0 && tensor < w->layout.tensors.n);
    const am_tensor *t = &w->layout.tensors.t[tensor];
    AM_ASSERT(lo >= 0 && n >= 0 && n <= t->numel - lo);
    const int64_t element = am_dtype_bytes(t->dtype);
    for (int64_t at = 0, step; at < n; at += step) {
        int rc = turn_to(w, &w->layout.extent[tensor], lo + at, element);
        if (rc != 0) {
            return rc;
        }
        const int64_t room = (w->piece_bytes - w->piece.n) / element;
        unsigned char *to = w->buffer + w->piece.n;
        step = n - at < room ? n - at : room;
        if (raw != NULL) {
            memcpy(to, (const char *)raw + at * element, (size_t)(step * element));
        } else {
            am_dtype_from_f64(t->dtype, real + at, step, to);
        }
        am_digest_stream_feed(&w->stream, &w->digests, tensor, t, lo + at, step, to);
        w->piece.n += step * element;
        w->stored += step;
        if (w->journal.folder != NULL) {
            w->failed = note_blocks(w, tensor, lo + at, step);
        }
    }
    return 0;
}

static int sink_store(void *self, int64_t tensor, int64_t lo, int64_t n, const double *src)
{
    return store(self, tensor, lo, n, NULL, src);
}

static int sink_store_raw(void *self, int64_t tensor, int64_t lo, int64_t n, const void *src)
{
    return store(self, tensor, lo, n, src, NULL);
}

static int sink_flush(void *self)
{
    return am_writer_put_out(self);
}

int am_ckpt_sink(am_ckpt_writer *writer, am_sink *out)
{
    *out = (am_sink){.self = writer,
                     .label = writer->root,
                     .tensors = &writer->layout.tensors,
                     .store = sink_store,
                     .store_raw = sink_store_raw,
                     .flush = sink_flush};
    return 0;
}
