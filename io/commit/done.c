/* Which blocks of an output are done: going on with an interrupted job.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdlib.h>
#include "io/commit/writer.h"
#include "io/dtype.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"
#include "mpi/watchdog.h"

int am_writer_reread(am_ckpt_writer *w, int64_t tensor, int64_t block)
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
                rc = am_writer_reread(w, i, b - d->first[i]);
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

int am_writer_resume_all(am_ckpt_writer *w, const char *path, double save_every)
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
