/* SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/sweep.h"

#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/partition.h"
#include "mpi/progress.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

enum { BATCH_BYTES = 16 << 20 };

/* This rank's spans, cut at blocks, and the batches that they form. */
typedef struct plan {
    int64_t n, n_batches;
    am_span *span[3]; /* [n]: in the table, in source 0, in source 1 */
    int64_t *first;   /* [n_batches + 1] first span of each batch */
    int64_t bytes;
} plan;

static void free_plan(plan *p)
{
    for (int k = 0; k < 3; k++) {
        free(p->span[k]);
    }
    free(p->first);
}

static int cut_blocks(const am_sweep *sweep, const am_slice *slice, plan *p)
{
    for (int64_t i = 0; i < slice->n; i++) {
        p->n += am_part_units(slice->spans[i].hi - slice->spans[i].lo, AM_BLOCK);
    }
    for (int k = 0; k < 3; k++) {
        p->span[k] = am_new(p->n + 1, sizeof(am_span), "a plan of blocks");
        if (p->span[k] == NULL) {
            return AM_E_NOMEM;
        }
    }
    int64_t at = 0;
    for (int64_t i = 0; i < slice->n; i++) {
        const am_span *s = &slice->spans[i];
        for (int64_t lo = s->lo; lo < s->hi; lo += AM_BLOCK, at++) {
            int64_t hi = s->hi - lo < AM_BLOCK ? s->hi : lo + AM_BLOCK;
            p->span[0][at] = (am_span){s->tensor, lo, hi};
            for (int k = 0; k < sweep->n_sources; k++) {
                int64_t t = sweep->index[k] != NULL ? sweep->index[k][s->tensor] : s->tensor;
                p->span[k + 1][at] = (am_span){t, lo, hi};
            }
        }
    }
    return 0;
}

static int make_plan(const am_sweep *sweep, int rank, int size, plan *p)
{
    int rc = 0;
    am_slice slice = {0};
    AM_TRY(am_slice_make(sweep->tensors, AM_BLOCK, size, rank, &slice));
    AM_TRY(cut_blocks(sweep, &slice, p));
    p->bytes = slice.bytes;
    p->first = am_new(p->n + 1, sizeof *p->first, "a plan of blocks");
    if (p->first == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    int64_t bytes = BATCH_BYTES;
    for (int64_t i = 0; i < p->n; i++) {
        const am_span *s = &p->span[0][i];
        int64_t add = (s->hi - s->lo) * am_dtype_bytes(sweep->tensors->t[s->tensor].dtype);
        if (add > BATCH_BYTES - bytes) {
            p->first[p->n_batches++] = i;
            bytes = 0;
        }
        bytes += add;
    }
    p->first[p->n_batches] = p->n;
cleanup:
    am_slice_free(&slice);
    return rc;
}

static int stage(const am_sweep *sweep, const plan *p, int64_t batch)
{
    int rc = 0;
    if (batch >= p->n_batches) {
        return 0;
    }
    int64_t lo = p->first[batch], n = p->first[batch + 1] - lo;
    for (int k = 0; k < sweep->n_sources; k++) {
        const am_source *source = sweep->source[k];
        if (source->stage != NULL) {
            AM_KEEP(source->stage(source->self, p->span[k + 1] + lo, n));
        }
    }
    return rc;
}

static int visit_batch(const am_sweep *sweep, const plan *p, int64_t batch)
{
    for (int64_t i = p->first[batch]; i < p->first[batch + 1]; i++) {
        const am_span *s = &p->span[0][i];
        for (int64_t lo = s->lo; lo < s->hi; lo += AM_SWEEP_ELEMENTS) {
            int64_t n = s->hi - lo < AM_SWEEP_ELEMENTS ? s->hi - lo : AM_SWEEP_ELEMENTS;
            int rc = sweep->visit(sweep->self, s->tensor, lo, n);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return sweep->flush != NULL ? sweep->flush(sweep->self) : 0;
}

int am_sweep_all(MPI_Comm comm, const am_sweep *sweep)
{
    int rc = 0, rank, size;
    plan p = {0};
    am_progress progress;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    rc = make_plan(sweep, rank, size, &p);
    AM_AGREE(comm);
    int64_t rounds = p.n_batches;
    AM_TRY(am_max_i64_all(comm, &rounds, 1));
    am_progress_start(&progress, sweep->title, rounds, "batches");
    AM_KEEP(stage(sweep, &p, 0));
    for (int64_t b = 0; b < rounds; b++) {
        AM_KEEP(stage(sweep, &p, b + 1));
        if (b < p.n_batches) {
            AM_KEEP(visit_batch(sweep, &p, b));
        }
        am_alive(sweep->title);
        AM_TRY(am_agree_step_all(comm, rc));
        am_progress_add(&progress, 1);
    }
    am_progress_end(&progress);
    AM_AGREE(comm); /* a stage of no batches may have failed */
cleanup:
    free_plan(&p);
    return rc;
}
