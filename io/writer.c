/* Writing checkpoints: create, a block sink with write-behind over the extents, publish.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/checkpoint.h"
#include "io/digest.h"
#include "io/dtype.h"
#include "io/file.h"
#include "io/format.h"
#include "io/manifest.h"
#include "io/publish.h"
#include "io/worker.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"

enum { PIECE_BYTES = 8 << 20 }; /* one write; two are in flight */

typedef struct piece {
    am_work work;
    am_ckpt_writer *owner;
    int64_t tensor, lo, n;
    unsigned char *buffer;
} piece;

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
    am_worker *worker;
    piece pieces[2];
    int64_t piece_bytes;
    int turn, failed; /* failed: first error of a write, kept until publish */
    am_digests digests;
    am_digest_stream stream; /* used by the I/O thread while it runs */
    int64_t stored;          /* elements */
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

/* Rank 0: lock, lay out, reserve, sync. On error nothing is left behind. */
static int begin_output(am_ckpt_writer *w, const char *path, const am_tensor_table *tensors,
                        const am_ckpt_options *options, char **bytes, int64_t *n)
{
    int rc = 0;
    am_layout layout = {0};
    AM_TRY(am_publish_begin(&w->publish, path, w->format->is_folder, options->overwrite,
                            options->inputs));
    AM_TRY(am_manifest_begin(w->format->name, options, &w->head));
    AM_TRY(copy_meta(options->meta, &w->meta));
    w->companions = w->format->is_folder ? options->companions : NULL;
    AM_TRY(w->format->lay_out(w->publish.partial, tensors, options, &layout));
    AM_TRY(am_file_sync_folder(w->publish.partial));
    AM_TRY(am_layout_pack(&layout, bytes, n));
cleanup:
    am_layout_free(&layout);
    if (rc != 0) {
        am_publish_abandon(&w->publish);
    }
    return rc;
}

static int open_files(am_ckpt_writer *w)
{
    int64_t n = w->layout.n_files;
    w->file_path = am_new(n + 1, sizeof *w->file_path, w->root);
    w->fd = am_new(n + 1, sizeof *w->fd, w->root);
    for (int64_t f = 0; w->fd != NULL && f < n; f++) {
        w->fd[f] = -1;
    }
    if (w->file_path == NULL || w->fd == NULL) {
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

static int make_pieces(am_ckpt_writer *w)
{
    int64_t total = am_tensor_table_bytes(&w->layout.tensors);
    w->piece_bytes = total < PIECE_BYTES ? (total / AM_ALIGN + 1) * AM_ALIGN : PIECE_BYTES;
    for (int i = 0; i < 2; i++) {
        w->pieces[i].owner = w;
        w->pieces[i].buffer = aligned_alloc(AM_ALIGN, (size_t)w->piece_bytes);
        if (w->pieces[i].buffer == NULL) {
            return am_fail(AM_E_NOMEM, "out of memory for %" PRId64 " bytes of write-behind",
                           w->piece_bytes);
        }
    }
    return 0;
}

static int prepare_rank(am_ckpt_writer *w, const char *path, const char *bytes, int64_t n)
{
    int rc = 0;
    char *clean = am_publish_clean_path(path);
    w->root = clean != NULL ? am_text("%s.partial", clean) : NULL;
    free(clean);
    if (w->root == NULL) {
        return AM_E_NOMEM;
    }
    w->attached = am_publish_attach(path);
    AM_KEEP(am_layout_unpack(bytes, n, &w->layout));
    AM_KEEP(open_files(w));
    AM_KEEP(make_pieces(w));
    AM_KEEP(am_digests_create(&w->layout.tensors, &w->digests));
    AM_KEEP(am_digest_stream_create(&w->stream));
    AM_KEEP(am_worker_start(&w->worker));
    return rc;
}

static void free_writer(am_ckpt_writer *w)
{
    if (w == NULL) {
        return;
    }
    am_worker_stop(&w->worker);
    for (int64_t f = 0; f < w->layout.n_files; f++) {
        if (w->fd != NULL && w->fd[f] >= 0) {
            close(w->fd[f]);
        }
        free(w->file_path != NULL ? w->file_path[f] : NULL);
    }
    for (int i = 0; i < 2; i++) {
        free(w->pieces[i].buffer);
    }
    if (w->attached >= 0) {
        close(w->attached);
    }
    free(w->fd);
    free(w->file_path);
    free(w->root);
    am_digests_free(&w->digests);
    am_digest_stream_free(&w->stream);
    am_layout_free(&w->layout);
    am_meta_free(&w->meta);
    am_manifest_head_free(&w->head);
    am_publish_abandon(&w->publish);
    free(w);
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
    MPI_Comm_rank(comm, &w->rank);
    MPI_Comm_size(comm, &w->size);
    w->format = am_format_of_output(path);
    options = options != NULL ? options : &no_options;
    AM_TRY(am_same_all(comm, hash_arguments(path, tensors), "am_ckpt_create_all: path, tensors"));
    int made = w->rank == 0 ? begin_output(w, path, tensors, options, &bytes, &n) : 0;
    AM_TRY(am_share_bytes_all(comm, 0, made, &bytes, &n));
    rc = prepare_rank(w, path, bytes, n);
    AM_AGREE(comm);
    *out = w;
    w = NULL;
cleanup:
    free(bytes);
    free_writer(w);
    return rc;
}

/* ---- the sink ---- */

/* On the I/O thread: checksum and write one piece. */
static int write_piece(am_work *work)
{
    piece *p = (piece *)work; /* its first member */
    am_ckpt_writer *w = p->owner;
    const am_tensor *t = &w->layout.tensors.t[p->tensor];
    const am_extent *e = &w->layout.extent[p->tensor];
    int64_t element = am_dtype_bytes(t->dtype);
    am_digest_stream_feed(&w->stream, &w->digests, p->tensor, t, p->lo, p->n, p->buffer);
    return am_file_write(w->fd[e->file], w->file_path[e->file], p->buffer, p->n * element,
                         e->offset + p->lo * element);
}

/* The next free piece, once its last write is done. */
static int next_piece(am_ckpt_writer *w, piece **out)
{
    piece *p = &w->pieces[w->turn];
    w->turn ^= 1;
    int rc = am_worker_wait(w->worker, &p->work);
    w->failed = w->failed != 0 ? w->failed : rc;
    p->work.rc = 0;
    *out = p;
    return w->failed;
}

static int drain(am_ckpt_writer *w)
{
    piece *p;
    next_piece(w, &p);
    next_piece(w, &p);
    return w->failed;
}

static int store(am_ckpt_writer *w, int64_t tensor, int64_t lo, int64_t n, const void *raw,
                 const double *real)
{
    AM_ASSERT(tensor >= 0 && tensor < w->layout.tensors.n);
    const am_tensor *t = &w->layout.tensors.t[tensor];
    AM_ASSERT(lo >= 0 && n >= 0 && n <= t->numel - lo);
    int64_t element = am_dtype_bytes(t->dtype), most = w->piece_bytes / element;
    for (int64_t at = 0; at < n; at += most) {
        int64_t step = n - at < most ? n - at : most;
        piece *p;
        int rc = next_piece(w, &p);
        if (rc != 0) {
            return rc;
        }
        if (raw != NULL) {
            memcpy(p->buffer, (const char *)raw + at * element, (size_t)(step * element));
        } else {
            am_dtype_from_f64(t->dtype, real + at, step, p->buffer);
        }
        p->work.run = write_piece;
        p->tensor = tensor;
        p->lo = lo + at;
        p->n = step;
        am_worker_submit(w->worker, &p->work);
        w->stored += step;
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
    return drain(self);
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
    if (stored != total) { /* the same on every rank */
        rc = am_fail(AM_E_BUG, "%" PRId64 " of %" PRId64 " elements of %s were stored", stored,
                     total, w->root);
    }
cleanup:
    return rc;
}

/* Digest of one block from the file. */
static int reread_block(am_ckpt_writer *w, int64_t tensor, int64_t block)
{
    const am_tensor *t = &w->layout.tensors.t[tensor];
    const am_extent *e = &w->layout.extent[tensor];
    int64_t element = am_dtype_bytes(t->dtype), most = w->piece_bytes / element;
    int64_t lo = block * AM_BLOCK, hi = lo + AM_BLOCK < t->numel ? lo + AM_BLOCK : t->numel;
    for (int64_t at = lo; at < hi; at += most) {
        int64_t step = hi - at < most ? hi - at : most;
        int rc = am_file_read(w->fd[e->file], w->file_path[e->file], w->pieces[0].buffer,
                              step * element, e->offset + at * element);
        if (rc != 0) {
            return rc;
        }
        am_digest_stream_feed(&w->stream, &w->digests, tensor, t, at, step, w->pieces[0].buffer);
    }
    return 0;
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

int am_ckpt_publish_all(am_ckpt_writer **writer, int rc)
{
    am_ckpt_writer *w = *writer;
    int drained = drain(w); /* in any case: nothing may write once the files are removed */
    rc = rc != 0 ? rc : drained;
    AM_KEEP(sync_files(w));
    AM_AGREE(w->comm);
    AM_TRY(check_coverage_all(w));
    AM_TRY(complete_digests_all(w));
    AM_KEEP(w->rank == 0 ? commit(w) : 0);
    AM_AGREE(w->comm);
cleanup:
    *writer = NULL;
    free_writer(w);
    return rc;
}
