/* Writing checkpoints: create a writer. Its other parts: writer.h.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/commit/finished.h"
#include "io/commit/provenance.h"
#include "io/commit/writer.h"
#include "io/dtype.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"

/* One write: large enough for the file system, small enough to be in the cache. */
enum { PIECE_BYTES = 1 << 20 };

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

/* Rank 0: the lock, unless the output is finished. That is looked at before the lock, which may not
 * be ours to take (an output in a read-only folder), and again with it: another job, or the ranks
 * of one whose launcher died, may have finished the output while this one waited. */
static int lock_output(am_ckpt_writer *w, const char *path, const am_ckpt_options *options)
{
    int rc = 0;
    const bool accepts = options->accept_finished && !options->overwrite;
    bool *is_finished = &w->resume.is_finished;
    if (accepts) {
        AM_TRY(am_output_is_finished(path, options, is_finished));
    }
    if (*is_finished) {
        am_publish_tidy(path, w->format->is_folder);
        goto cleanup;
    }
    AM_TRY(am_publish_begin(&w->publish, path, w->format->is_folder, options->overwrite,
                            options->inputs));
    if (accepts) {
        AM_TRY(am_output_is_finished(path, options, is_finished));
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
    w->publish.beside = w->format->is_folder ? NULL : options->beside;
    w->publish.beside_text = options->beside_text;
    AM_TRY(am_provenance_find(w->format->name, options, &w->head));
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

void am_writer_free(am_ckpt_writer *w)
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
        AM_TRY(am_writer_resume_all(w, path, options->save_every));
    }
    *out = w;
    w = NULL;
cleanup:
    free(bytes);
    if (rc != 0 && w != NULL && w->resume.is_resumed) {
        am_publish_suspend(&w->publish);
    }
    am_writer_free(w);
    return rc;
}
