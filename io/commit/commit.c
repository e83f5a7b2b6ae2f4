/* The end of an output: all of it synced, digests complete, published; or left to the next attempt.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>
#include "io/commit/writer.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/reduce.h"

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
                    AM_KEEP(am_writer_reread(w, i, b - d->first[i]));
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
    const int written = am_writer_put_out(w); /* nothing is written once the files are removed */
    rc = rc != 0 ? rc : written;
    if (rc == AM_E_STOPPED && written == 0) {
        rc = am_writer_save(w);
        rc = rc != 0 ? rc : AM_E_STOPPED;
    }
    AM_KEEP(sync_files(w));
    AM_AGREE(w->comm);
    AM_TRY(check_coverage_all(w));
    AM_TRY(complete_digests_all(w));
    AM_KEEP(w->rank == 0 ? commit(w) : 0);
    AM_AGREE(w->comm);
cleanup:
    am_pace_tell(&w->journal.pace, w->root);
    if (rc != 0) {
        suspend_all(w, rc);
    }
    *writer = NULL;
    am_writer_free(w);
    return rc;
}
