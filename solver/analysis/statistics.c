/* Statistics over the ranks: see statistics.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/analysis/statistics.h"

#include <stdlib.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/stop.h"

enum { STEP = 1 << 16 }; /* values stored at a time */

int am_statistics_open_all(MPI_Comm comm, const am_train_ops *ops, const am_net *net,
                           const am_statistics_options *options, am_statistics *out)
{
    int rank, size;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    *out = (am_statistics){.comm = comm, .net = net, .ops = ops, .options = *options};
    int rc = am_stats_layout_make(net, &options->what, &out->layout);
    AM_KEEP(am_slice_make(&out->layout.tensors, AM_BLOCK, size, rank, &out->slice));
    if (rc == AM_OK) {
        out->sum = am_new(out->slice.elements + 1, sizeof *out->sum, "statistics");
        out->whole = am_new(out->layout.n, sizeof *out->whole, "statistics");
        rc = out->sum == NULL || out->whole == NULL ? AM_E_NOMEM : AM_OK;
    }
    AM_AGREE(comm);
    AM_TRY(am_tree_create_all(comm, options->micro_batches, out->layout.n, (int)sizeof *out->sum,
                              &out->tree));
cleanup:
    return rc;
}

void am_statistics_free(am_statistics *self)
{
    if (self->tree != NULL) {
        am_tree_free(&self->tree);
    }
    am_slice_free(&self->slice);
    am_stats_layout_free(&self->layout);
    free(self->sum);
    free(self->whole);
    *self = (am_statistics){0};
}

static int sums_bytes(const am_stats_layout *layout, int64_t micro_batches, int ranks, int64_t *out)
{
    int rc = AM_OK;
    *out = 0;
    for (int r = 0; r < ranks && rc == AM_OK; r++) {
        am_slice slice = {0};
        int64_t bytes = 0;
        rc = am_tree_bytes(micro_batches, layout->n, (int)sizeof(double), ranks, r, true,
                           AM_TREE_ROOT, &bytes);
        AM_KEEP(am_slice_make(&layout->tensors, AM_BLOCK, ranks, r, &slice));
        bytes += slice.bytes;
        *out = bytes > *out ? bytes : *out;
        am_slice_free(&slice);
    }
    return rc;
}

int am_statistics_bytes(const am_train_ops *ops, const am_net *net,
                        const am_statistics_options *options, int64_t n, int64_t classes, int ranks,
                        int64_t *sums, int64_t *leaf)
{
    am_stats_layout layout = {0};
    const int64_t batch = n < options->batch ? n : options->batch;
    int rc = am_stats_layout_make(net, &options->what, &layout);
    AM_KEEP(sums_bytes(&layout, options->micro_batches, ranks, sums));
    AM_KEEP(ops->stats_bytes(net, &options->what, am_part_units(batch, options->micro_batches),
                             classes, leaf));
    am_stats_layout_free(&layout);
    return rc;
}

/* ---- batches ---- */

int64_t am_statistics_batches(const am_statistics_options *options, int64_t n)
{
    return am_part_units(n, options->batch);
}

/* Samples of micro-batch `leaf` of batch `number`. */
static void leaf_range(const am_statistics *self, int64_t n, int64_t number, int64_t leaf,
                       int64_t *lo, int64_t *hi)
{
    const int64_t batch = self->options.batch, at = number * batch < n ? number * batch : n;
    am_part_range(n - at < batch ? n - at : batch, self->options.micro_batches, leaf, lo, hi);
    *lo += at;
    *hi += at;
}

/* One of the own leaves [first, last), number `i`. */
static int make_leaf(const am_statistics *self, const void *trunk, const am_task *task,
                     int64_t number, int64_t i, int64_t first, int64_t last, double *sums)
{
    const int64_t n = task->train.n;
    am_stats_leaf leaf = {.net = self->net,
                          .layout = &self->layout,
                          .options = &self->options.what,
                          .trunk = trunk,
                          .other = self->other,
                          .head = task->head,
                          .classes = task->classes,
                          .samples = &task->train};
    leaf_range(self, n, number, i, &leaf.lo, &leaf.hi);
    leaf_range(self, n, i + 1 < last ? number : number + 1, i + 1 < last ? i + 1 : first,
               &leaf.ahead_lo, &leaf.ahead_hi);
    return self->ops->stats(&leaf, sums);
}

/* sum += the own spans of `batch` */
static void add_slice(am_statistics *self, const double *batch)
{
    double *sum = self->sum;
    for (int64_t s = 0; s < self->slice.n; s++) {
        const am_span *span = &self->slice.spans[s];
        const double *from = batch + self->layout.offset[span->tensor];
        for (int64_t i = span->lo; i < span->hi; i++) {
            *sum++ += from[i];
        }
    }
}

int am_statistics_batch_all(am_statistics *self, const void *trunk, const am_task *task,
                            int64_t number)
{
    int64_t first, last;
    const void *root = NULL;
    int rc = AM_OK;
    am_tree_leaves(self->tree, &first, &last);
    for (int64_t i = first; i < last; i++) {
        double *sums = am_tree_next(self->tree);
        if (rc == AM_OK && !am_stop_requested()) {
            rc = make_leaf(self, trunk, task, number, i, first, last, sums);
        }
        am_tree_push(self->tree);
    }
    AM_TRY(am_agree_step_all(self->comm, rc));
    AM_TRY(am_tree_root_all(self->tree, self->whole, &root));
    add_slice(self, root);
cleanup:
    return rc;
}

/* ---- in and out ---- */

/* Slices are pieces of the sums, one after the other. */
int am_statistics_gather_all(const am_statistics *self, double *whole)
{
    int rank, size;
    int64_t at = 0;
    MPI_Comm_rank(self->comm, &rank);
    MPI_Comm_size(self->comm, &size);
    int64_t *bytes = am_new(2 * (int64_t)size, sizeof *bytes, "statistics");
    int rc = bytes == NULL ? AM_E_NOMEM : AM_OK;
    for (int r = 0; r < size && rc == AM_OK; r++) {
        am_slice slice = {0};
        rc = am_slice_make(&self->layout.tensors, AM_BLOCK, size, r, &slice);
        bytes[r] = slice.elements * (int64_t)sizeof *whole;
        bytes[size + r] = at;
        at += bytes[r];
        am_slice_free(&slice);
    }
    AM_AGREE(self->comm);
    AM_ASSERT(at == self->layout.n * (int64_t)sizeof *whole);
    memcpy(whole + bytes[size + rank] / (int64_t)sizeof *whole, self->sum, (size_t)bytes[rank]);
    AM_TRY(am_gather_all(self->comm, whole, bytes, bytes + size));
cleanup:
    free(bytes);
    return rc;
}

int am_statistics_store(const am_statistics *self, int64_t samples, const am_sink *sink)
{
    const double *from = self->sum;
    double *value = am_new(STEP, sizeof *value, "statistics");
    int rc = value == NULL ? AM_E_NOMEM : AM_OK;
    for (int64_t s = 0; s < self->slice.n && rc == AM_OK; s++) {
        const am_span *span = &self->slice.spans[s];
        const double rows = (double)(samples * self->layout.rows[span->tensor]);
        for (int64_t lo = span->lo; lo < span->hi && rc == AM_OK; lo += STEP) {
            const int64_t n = span->hi - lo < STEP ? span->hi - lo : STEP;
            for (int64_t i = 0; i < n; i++) {
                value[i] = samples > 0 ? from[i] / rows : from[i];
            }
            rc = sink->store(sink->self, span->tensor, lo, n, value);
            from += n;
        }
    }
    free(value);
    return rc;
}

int am_statistics_load(am_statistics *self, const am_source *source)
{
    double *to = self->sum;
    int rc = AM_OK;
    for (int64_t s = 0; s < self->slice.n && rc == AM_OK; s++) {
        const am_span *span = &self->slice.spans[s];
        const int64_t at =
            am_tensor_table_find(source->tensors, self->layout.tensors.t[span->tensor].name);
        rc = at < 0 ? am_fail(AM_E_DATA, "%s has no tensor %s", source->label,
                              self->layout.tensors.t[span->tensor].name)
                    : source->load(source->self, at, span->lo, span->hi - span->lo, to);
        to += span->hi - span->lo;
    }
    return rc;
}
