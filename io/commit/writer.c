/* Writing checkpoints: create, a block sink over the extents, publish.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/checkpoint/checkpoint.h"
#include "io/commit/digest.h"
#include "io/dtype.h"
#include "io/file.h"
#include "io/checkpoint/format.h"
#include "io/commit/identity.h"
#include "io/commit/manifest.h"
#include "io/commit/publish.h"
#include "io/commit/resume.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"
#include "mpi/watchdog.h"

/* One write: large enough for the file system, small enough to be in the cache. What was written is
 * sent to the disk WRITE_BACK_BYTES at a time, so that little is left to the sync at the end. */
enum { PIECE_BYTES = 1 << 20, WRITE_BACK_BYTES = 8 << 20 };

/* Bytes of one file. */
typedef struct range {
    int64_t file, at, n;
} range;

struct am_ckpt_writer {
    MPI_Comm comm; /* borrowed */
    int rank, size;
    const am_format *format;
    am_layout layout;
    char *root;         /* the temporary name */
    char **file_path;   /* [n_files] owned */
    int *fd;            /* [n_files] */
    am_meta meta;       /* rank 0: for the manifest */
    am_publish publish; /* rank 0 */
    am_manifest_head head;
    am_companions *companions; /* rank 0, borrowed; NULL: none */
    int attached;              /* shared lock, -1: none */
    unsigned char *buffer;     /* [piece_bytes] */
    int64_t piece_bytes;
    range piece;   /* what is in the buffer: stores that follow each other in a file */
    range written; /* not yet sent to the disk */
    int failed;    /* first error of a write, kept until publish */
    am_digests digests;
    am_digest_stream stream;
    int64_t stored; /* elements */

    am_resume_state resume;
    am_journal journal;
    bool *is_dirty; /* [n_files] written since the last sync */
    bool *done;     /* [n_blocks, same] need not be stored */
    int64_t n_done, done_elements;
};

/* ---- create ---- */

static int copy_meta(const am_meta *from, am_meta *to)
{
    for (int64_t i = 0; from != NULL && i < from->n; i++) {
        int rc = am_meta_set(to, from->key[i], from->value[i]);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* Whether an input was written after the output's manifest. */
static bool is_newer(const char *const *inputs, const struct stat *manifest)
{
    const int64_t made = (int64_t)manifest->st_mtim.tv_sec * 1000000000 + manifest->st_mtim.tv_nsec;
    bool newer = false;
    for (int64_t i = 0; inputs != NULL && inputs[i] != NULL && !newer; i++) {
        am_input_facts facts;
        newer = am_input_facts_read(inputs[i], &facts) != 0 ||
                (!facts.has_content && facts.modified_ns > made);
    }
    return newer;
}

/* Rank 0: see options->accept_finished. An output that is another's is not an error here. */
static int find_finished(const char *path, const am_ckpt_options *options, bool *is_finished)
{
    int rc = 0;
    struct stat st;
    am_manifest_head head = {0};
    am_layout layout = {0};
    const am_format *format = am_format_of_output(path);
    char *clean = am_clean_path(path);
    char *manifest = clean != NULL ? am_manifest_path(clean, format->is_folder) : NULL;
    if (manifest == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    if (access(clean, F_OK) != 0 || stat(manifest, &st) != 0) {
        goto cleanup; /* ordinary */
    }
    AM_TRY(am_manifest_begin(format->name, options, &head));
    *is_finished = am_manifest_is_of(clean, format->is_folder, &head) &&
                   !is_newer(options->inputs, &st) && format->read_layout(clean, &layout) == 0;
    am_error_clear();
cleanup:
    am_layout_free(&layout);
    am_manifest_head_free(&head);
    free(manifest);
    free(clean);
    return rc;
}

/* Rank 0: the lock, unless the output is finished. That is looked at before the lock, which may not
 * be ours to take (an output in a read-only folder), and again with it: another job, or the ranks
 * of one whose launcher died, may have finished the output while this one waited. */
static int lock_output(am_ckpt_writer *w, const char *path, const am_ckpt_options *options)
{
    int rc = 0;
    const bool accepts = options->accept_finished && !options->overwrite;
    bool *is_finished = &w->resume.is_finished;
    if (accepts) {
        AM_TRY(find_finished(path, options, is_finished));
    }
    if (*is_finished) {
        am_publish_tidy(path, w->format->is_folder);
        goto cleanup;
    }
    AM_TRY(am_publish_begin(&w->publish, path, w->format->is_folder, options->overwrite,
                            options->inputs));
    if (accepts) {
        AM_TRY(find_finished(path, options, is_finished));
    }
    if (!*is_finished) {
        AM_TRY(am_publish_check(&w->publish));
    }
cleanup:
    return rc;
}

/* Rank 0: lock, lay out, reserve, sync. On error nothing is left behind. */
static int begin_output(am_ckpt_writer *w, const char *path, const am_tensor_table *tensors,
                        const am_ckpt_options *options, char **bytes, int64_t *n)
{
    int rc = 0;
    bool is_ours = false;
    am_layout layout = {0};
    AM_TRY(lock_output(w, path, options));
    if (w->resume.is_finished) {
        goto cleanup;
    }
    AM_TRY(am_manifest_begin(w->format->name, options, &w->head));
    AM_TRY(copy_meta(options->meta, &w->meta));
    w->companions = w->format->is_folder ? options->companions : NULL;
    if (options->identity != NULL) {
        rc = am_resume_find(w->publish.partial, w->publish.journal, options->identity,
                            options->fresh, &w->resume, &layout);
        AM_TRY(rc);
    }
    if (!w->resume.is_resumed) {
        is_ours = true;
        AM_TRY(am_publish_clear(&w->publish));
        AM_TRY(w->format->lay_out(w->publish.partial, tensors, options, &layout));
        AM_TRY(am_file_sync_folder(w->publish.partial));
    }
    if (w->resume.has_journal && !w->resume.is_resumed) {
        AM_TRY(am_resume_begin(w->publish.partial, w->publish.journal, options->identity, &layout,
                               &w->resume));
    }
    AM_TRY(am_layout_pack(&layout, bytes, n));
cleanup:
    am_layout_free(&layout);
    if (rc != 0 && is_ours) {
        am_publish_abandon(&w->publish);
    } else if (rc != 0) { /* what is there may serve a later job */
        am_publish_suspend(&w->publish);
    }
    return rc;
}

static int open_files(am_ckpt_writer *w)
{
    int64_t n = w->layout.n_files;
    w->file_path = am_new(n + 1, sizeof *w->file_path, w->root);
    w->fd = am_new(n + 1, sizeof *w->fd, w->root);
    w->is_dirty = am_new(n + 1, sizeof *w->is_dirty, w->root);
    for (int64_t f = 0; w->fd != NULL && f < n; f++) {
        w->fd[f] = -1;
    }
    if (w->file_path == NULL || w->fd == NULL || w->is_dirty == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t f = 0; f < n; f++) {
        w->file_path[f] = am_layout_path(&w->layout, w->root, f);
        if (w->file_path[f] == NULL) {
            return AM_E_NOMEM;
        }
        w->fd[f] = am_file_reopen(w->file_path[f]);
        if (w->fd[f] < 0) {
            return w->fd[f];
        }
    }
    return 0;
}

static int make_buffer(am_ckpt_writer *w)
{
    const int64_t total = am_tensor_table_bytes(&w->layout.tensors);
    w->piece_bytes = total < PIECE_BYTES ? (total / AM_ALIGN + 1) * AM_ALIGN : PIECE_BYTES;
    w->buffer = aligned_alloc(AM_ALIGN, (size_t)w->piece_bytes);
    return w->buffer != NULL ? 0
                             : am_fail(AM_E_NOMEM, "out of memory for %" PRId64 " bytes of output",
                                       w->piece_bytes);
}

static int prepare_rank(am_ckpt_writer *w, const char *path, const char *bytes, int64_t n)
{
    int rc = 0;
    char *clean = am_clean_path(path);
    w->root = clean != NULL ? am_text("%s.partial", clean) : NULL;
    free(clean);
    if (w->root == NULL) {
        return AM_E_NOMEM;
    }
    w->attached = am_publish_attach(path);
    AM_KEEP(am_layout_unpack(bytes, n, &w->layout));
    AM_KEEP(open_files(w));
    AM_KEEP(make_buffer(w));
    AM_KEEP(am_digests_create(&w->layout.tensors, &w->digests));
    AM_KEEP(am_digest_stream_create(&w->stream));
    w->done = am_new(w->digests.n_blocks + 1, sizeof *w->done, w->root);
    AM_KEEP(w->done == NULL ? AM_E_NOMEM : 0);
    return rc;
}

static void free_writer(am_ckpt_writer *w)
{
    if (w == NULL) {
        return;
    }
    for (int64_t f = 0; f < w->layout.n_files; f++) {
        if (w->fd != NULL && w->fd[f] >= 0) {
            close(w->fd[f]);
        }
        free(w->file_path != NULL ? w->file_path[f] : NULL);
    }
    free(w->buffer);
    if (w->attached >= 0) {
        close(w->attached);
    }
    am_journal_close(&w->journal);
    free(w->fd);
    free(w->file_path);
    free(w->is_dirty);
    free(w->done);
    free(w->root);
    am_digests_free(&w->digests);
    am_digest_stream_free(&w->stream);
    am_layout_free(&w->layout);
    am_meta_free(&w->meta);
    am_manifest_head_free(&w->head);
    am_publish_abandon(&w->publish);
    free(w);
}

/* ---- going on with an interrupted job ---- */

/* Digest of one block from the file. */
static int reread_block(am_ckpt_writer *w, int64_t tensor, int64_t block)
{
    const am_tensor *t = &w->layout.tensors.t[tensor];
    const am_extent *e = &w->layout.extent[tensor];
    int64_t element = am_dtype_bytes(t->dtype), most = w->piece_bytes / element;
    int64_t lo = block * AM_BLOCK, hi = lo + AM_BLOCK < t->numel ? lo + AM_BLOCK : t->numel;
    for (int64_t at = lo; at < hi; at += most) {
        int64_t step = hi - at < most ? hi - at : most;
        int rc = am_file_read(w->fd[e->file], w->file_path[e->file], w->buffer, step * element,
                              e->offset + at * element);
        if (rc != 0) {
            return rc;
        }
        am_digest_stream_feed(&w->stream, &w->digests, tensor, t, at, step, w->buffer);
    }
    return 0;
}

/* Read this rank's share of the blocks that records name, and forget those that are not as the
 * records say. Each block stays known on one rank. */
static int check_blocks(am_ckpt_writer *w, int64_t *n_bad)
{
    am_digests *d = &w->digests;
    int rc = 0;
    int64_t turn = 0;
    *n_bad = 0;
    for (int64_t i = 0; rc == 0 && i < d->n_tensors; i++) {
        for (int64_t b = d->first[i]; rc == 0 && b < d->first[i + 1]; b++) {
            const int64_t wanted = d->value[b];
            const bool is_mine = d->known[b] != 0 && turn++ % w->size == w->rank;
            if (is_mine) {
                am_alive("check");
                rc = reread_block(w, i, b - d->first[i]);
            }
            const bool is_bad = is_mine && d->value[b] != wanted;
            *n_bad += is_bad;
            if (!is_mine || is_bad) {
                d->value[b] = d->known[b] = 0;
            }
        }
    }
    return rc;
}

static int64_t block_elements(const am_ckpt_writer *w, int64_t tensor, int64_t block)
{
    const int64_t left = w->layout.tensors.t[tensor].numel - block * AM_BLOCK;
    return left < AM_BLOCK ? left : AM_BLOCK;
}

static void mark_done(am_ckpt_writer *w)
{
    const am_digests *d = &w->digests;
    for (int64_t i = 0; i < d->n_tensors; i++) {
        for (int64_t b = d->first[i]; b < d->first[i + 1]; b++) {
            w->done[b] = d->known[b] != 0;
            w->n_done += w->done[b];
            w->done_elements += w->done[b] ? block_elements(w, i, b - d->first[i]) : 0;
        }
    }
}

/* What the journals of all ranks of earlier attempts say, checked against the data. */
static int find_done_all(am_ckpt_writer *w)
{
    am_digests *d = &w->digests;
    int rc = 0;
    int64_t n_bad = 0;
    if (w->rank == 0) {
        rc = am_journal_unite(w->publish.journal, w->resume.plan, d->n_blocks, d->value, d->known,
                              &w->resume.attempt);
    }
    AM_AGREE(w->comm);
    AM_TRY(am_bcast_all(w->comm, 0, d->value, d->n_blocks * (int64_t)sizeof *d->value));
    AM_TRY(am_bcast_all(w->comm, 0, d->known, d->n_blocks * (int64_t)sizeof *d->known));
    rc = check_blocks(w, &n_bad);
    AM_AGREE(w->comm);
    AM_TRY(am_digests_share_all(w->comm, d));
    AM_TRY(am_sum_i64_all(w->comm, &n_bad, 1));
    mark_done(w);
    if (n_bad > 0) {
        am_warn("%s: %" PRId64 " blocks are not what their records say: they are made again",
                w->root, n_bad);
    }
    am_info("%s: going on, %" PRId64 " of %" PRId64 " blocks are done", w->root, w->n_done,
            d->n_blocks);
    if (w->rank == 0) {
        rc = am_journal_compact(w->publish.journal, w->resume.plan, d->n_blocks, d->value, d->known,
                                w->resume.attempt++);
    }
    AM_AGREE(w->comm);
cleanup:
    return rc;
}

/* Open this rank's journal, after what earlier attempts did has been found. */
static int resume_all(am_ckpt_writer *w, const char *path, double save_every)
{
    int rc = 0;
    am_digests *d = &w->digests;
    if (w->resume.is_resumed) {
        AM_TRY(find_done_all(w));
    }
    for (int64_t b = 0; w->rank != 0 && b < d->n_blocks; b++) { /* one rank holds what is known */
        d->value[b] = d->known[b] = 0;
    }
    AM_TRY(am_bcast_all(w->comm, 0, &w->resume.attempt, (int64_t)sizeof w->resume.attempt));
    char *clean = am_clean_path(path);
    char *folder = clean != NULL ? am_text("%s.journal", clean) : NULL;
    rc = folder == NULL ? AM_E_NOMEM
                        : am_journal_open(folder, w->resume.plan, w->resume.attempt, w->rank,
                                          save_every, &w->journal);
    free(folder);
    free(clean);
    AM_AGREE(w->comm);
cleanup:
    return rc;
}

bool am_ckpt_block_is_done(const am_ckpt_writer *writer, int64_t tensor, int64_t block)
{
    return writer->done[writer->digests.first[tensor] + block];
}

int64_t am_ckpt_blocks_done(const am_ckpt_writer *writer, int64_t *blocks)
{
    *blocks = writer->digests.n_blocks;
    return writer->n_done;
}

void am_ckpt_redo(am_ckpt_writer *w, int64_t tensor)
{
    am_digests *d = &w->digests;
    for (int64_t b = d->first[tensor]; b < d->first[tensor + 1]; b++) {
        if (w->done[b]) {
            w->done[b] = false;
            w->n_done--;
            w->done_elements -= block_elements(w, tensor, b - d->first[tensor]);
            d->value[b] = d->known[b] = 0;
        }
    }
}

static uint64_t hash_arguments(const char *path, const am_tensor_table *tensors)
{
    uint64_t hash = am_hash64(path, (int64_t)strlen(path), 0);
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        int64_t dtype = (int64_t)t->dtype;
        hash = am_hash64(t->name, (int64_t)strlen(t->name), hash);
        hash = am_hash64(&dtype, (int64_t)sizeof dtype, hash);
        hash = am_hash64(t->shape, t->ndim * (int64_t)sizeof *t->shape, hash);
    }
    return hash;
}

int am_ckpt_create_all(MPI_Comm comm, const char *path, const am_tensor_table *tensors,
                       const am_ckpt_options *options, am_ckpt_writer **out)
{
    static const am_ckpt_options no_options = {0};
    int rc = 0;
    char *bytes = NULL;
    int64_t n = 0;
    am_ckpt_writer *w = am_new(1, sizeof *w, "a checkpoint writer");
    rc = w == NULL ? AM_E_NOMEM : 0;
    AM_AGREE(comm);
    w->comm = comm;
    w->attached = -1;
    w->publish.lock_fd = -1;
    w->journal.fd = -1;
    MPI_Comm_rank(comm, &w->rank);
    MPI_Comm_size(comm, &w->size);
    w->format = am_format_of_output(path);
    options = options != NULL ? options : &no_options;
    AM_TRY(am_same_all(comm, hash_arguments(path, tensors), "am_ckpt_create_all: path, tensors"));
    int made = w->rank == 0 ? begin_output(w, path, tensors, options, &bytes, &n) : 0;
    AM_TRY(am_share_bytes_all(comm, 0, made, &bytes, &n));
    AM_TRY(am_bcast_all(comm, 0, &w->resume, (int64_t)sizeof w->resume));
    *out = NULL;
    if (w->resume.is_finished) {
        goto cleanup; /* what a dead job left beside it goes with the lock */
    }
    rc = prepare_rank(w, path, bytes, n);
    AM_AGREE(comm);
    if (w->resume.has_journal) {
        AM_TRY(resume_all(w, path, options->save_every));
    }
    *out = w;
    w = NULL;
cleanup:
    free(bytes);
    if (rc != 0 && w != NULL && w->resume.is_resumed) {
        am_publish_suspend(&w->publish);
    }
    free_writer(w);
    return rc;
}

/* ---- the sink ---- */

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

/* Data first, then the records of it. */
static int save_state(am_ckpt_writer *w)
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
    range *r = &w->written;
    if (r->file != w->piece.file || r->at + r->n != w->piece.at) {
        *r = (range){.file = w->piece.file, .at = w->piece.at};
    }
    r->n += w->piece.n;
    if (r->n >= WRITE_BACK_BYTES) {
        am_file_write_back(w->fd[r->file], r->at, r->n);
        *r = (range){.file = r->file, .at = r->at + r->n};
    }
}

/* Write what is in the buffer. */
static int put_out(am_ckpt_writer *w)
{
    range *p = &w->piece;
    if (p->n > 0 && w->failed == 0) {
        w->is_dirty[p->file] = true;
        w->failed = am_file_write(w->fd[p->file], w->file_path[p->file], w->buffer, p->n, p->at);
        write_back(w);
    }
    *p = (range){.file = p->file, .at = p->at + p->n};
    if (w->failed == 0 && w->journal.n > 0 && am_pace_is_due(&w->journal.pace)) {
        w->failed = save_state(w);
    }
    return w->failed;
}

/* Make the buffer go on at element lo of a tensor, with room for at least one. */
static int turn_to(am_ckpt_writer *w, const am_extent *e, int64_t lo, int64_t element)
{
    const int64_t at = e->offset + lo * element;
    const range *p = &w->piece;
    const bool follows = p->file == e->file && p->at + p->n == at && p->n % element == 0;
    int rc = w->failed;
    if (rc == 0 && (!follows || w->piece_bytes - p->n < element)) {
        rc = put_out(w);
        w->piece = (range){.file = e->file, .at = at};
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
    return put_out(self);
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

/* ---- publish ---- */

static int sync_files(am_ckpt_writer *w)
{
    for (int64_t f = 0; f < w->layout.n_files; f++) {
        if (fsync(w->fd[f]) != 0) {
            return am_fail_errno(AM_E_IO, errno, "cannot sync %s", w->file_path[f]);
        }
    }
    return 0;
}

static int check_coverage_all(am_ckpt_writer *w)
{
    int rc = 0;
    int64_t stored = w->stored, total = am_tensor_table_numel(&w->layout.tensors);
    AM_TRY(am_sum_i64_all(w->comm, &stored, 1));
    if (stored != total - w->done_elements) { /* the same on every rank */
        rc = am_fail(AM_E_BUG, "%" PRId64 " of %" PRId64 " elements of %s were stored", stored,
                     total - w->done_elements, w->root);
    }
cleanup:
    return rc;
}

/* Blocks that were shared between ranks or stored out of order are read back, in turn. */
static int complete_digests_all(am_ckpt_writer *w)
{
    int rc = 0;
    am_digests *d = &w->digests;
    int64_t missing = 0;
    AM_TRY(am_digests_share_all(w->comm, d));
    for (int64_t b = 0; b < d->n_blocks; b++) {
        missing += d->known[b] == 0;
    }
    if (missing == 0) { /* the same on every rank */
        return 0;
    }
    int64_t turn = 0;
    for (int64_t i = 0; i < d->n_tensors; i++) {
        for (int64_t b = d->first[i]; b < d->first[i + 1]; b++) {
            if (d->known[b] == 0) {
                if (turn++ % w->size == w->rank) {
                    AM_KEEP(reread_block(w, i, b - d->first[i]));
                }
            } else if (w->rank != 0) { /* one rank holds it for the next sum */
                d->known[b] = d->value[b] = 0;
            }
        }
    }
    AM_AGREE(w->comm);
    AM_TRY(am_digests_share_all(w->comm, d));
cleanup:
    return rc;
}

/* Rank 0: everything is on disk; last metadata, manifest, rename. */
static int commit(am_ckpt_writer *w)
{
    int rc = 0;
    char *text = NULL;
    int64_t n = 0;
    if (w->format->finish != NULL) {
        AM_TRY(w->format->finish(w->publish.partial, &w->layout));
    }
    if (w->companions != NULL) {
        AM_TRY(am_companions_write(w->companions, w->publish.partial));
    }
    AM_TRY(am_manifest_write(&w->head, &w->layout.tensors, &w->meta, &w->digests, w->companions,
                             &text, &n));
    AM_TRY(am_publish_commit(&w->publish, text, n));
cleanup:
    free(text);
    return rc;
}

/* Failed or stopped: leave what is done to the next attempt, if anything is. */
static void suspend_all(am_ckpt_writer *w, int rc)
{
    const bool may_go_on = rc == AM_E_STOPPED || rc == AM_E_IO || rc == AM_E_NOMEM;
    int64_t done = w->journal.saved;
    if (w->journal.folder == NULL || !may_go_on || am_sum_i64_all(w->comm, &done, 1) != 0) {
        return;
    }
    if (done + w->n_done > 0) {
        am_info("%s: %" PRId64 " of %" PRId64 " blocks are kept; the same command goes on", w->root,
                done + w->n_done, w->digests.n_blocks);
        am_publish_suspend(&w->publish);
    }
}

int am_ckpt_publish_all(am_ckpt_writer **writer, int rc)
{
    am_ckpt_writer *w = *writer;
    const int written = put_out(w); /* nothing is written once the files are removed */
    rc = rc != 0 ? rc : written;
    if (rc == AM_E_STOPPED && written == 0) {
        rc = save_state(w);
        rc = rc != 0 ? rc : AM_E_STOPPED;
    }
    AM_KEEP(sync_files(w));
    AM_AGREE(w->comm);
    AM_TRY(check_coverage_all(w));
    AM_TRY(complete_digests_all(w));
    AM_KEEP(w->rank == 0 ? commit(w) : 0);
    AM_AGREE(w->comm);
cleanup:
    if (rc != 0) {
        suspend_all(w, rc);
    }
    *writer = NULL;
    free_writer(w);
    return rc;
}
