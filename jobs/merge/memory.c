/* Memory of a merge.
 *
 *   peak = process + orders + windows + scratch + block * (8 + 2 * input bytes) + write-behind
 *
 * but for a rank that has less than two blocks. A block is one batch: its output in f64, and every
 * input twice, read and read ahead. What is written behind is two pieces of a batch.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/memory.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include "mpi/agree.h"
#include "mpi/reduce.h"
#include "solver/merge/order.h"

enum {
    WINDOW = 8 * AM_TILE,   /* elements, of the merge engine */
    PIECE = 8 << 20,        /* bytes, of the writer */
    ORDERS = 16 << 20,      /* bytes at most, of the merge engine */
    STREAM = (1 << 16) * 8, /* bytes of the counts of one cut */
    ROOM = 2 << 20,         /* bytes: threads, messages, tables */
    USUAL_BLOCK = 1 << 20   /* elements: larger ones gain nothing without passes */
};

/* glibc raises the size from which it maps pages whenever a larger block is freed, unless it is
 * set.
 */
void am_memory_keep_no_holes(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 128 << 10);
    (void)mallopt(M_TRIM_THRESHOLD, 128 << 10);
}

static int own_peak(int64_t *bytes)
{
    char line[256];
    long long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    if (f == NULL) {
        return am_fail_errno(AM_E_IO, errno, "cannot read /proc/self/status");
    }
    while (kib < 0 && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "VmHWM: %lld kB", &kib) != 1) {
            kib = -1;
        }
    }
    (void)fclose(f);
    *bytes = kib * 1024;
    return kib >= 0 ? 0 : am_fail(AM_E_IO, "no VmHWM in /proc/self/status");
}

int am_memory_peak_all(MPI_Comm comm, int64_t *bytes)
{
    int rc = own_peak(bytes);
    AM_AGREE(comm);
    rc = am_max_i64_all(comm, bytes, 1);
cleanup:
    return rc;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static bool uses_input(const am_merge_plan *plan, const am_merge_input *input)
{
    const am_method *method = plan->job.method;
    return input != plan->job.base || method->needs_base || method->takes_base;
}

/* Inputs that the method sees: the base, if it does, and the models. */
static int inputs(const am_merge_plan *plan, const am_merge_input **input)
{
    int n = 0;
    if (plan->job.base != NULL && uses_input(plan, plan->job.base)) {
        input[n++] = plan->job.base;
    }
    for (int m = 0; m < plan->job.n_models; m++) {
        input[n++] = &plan->job.models[m];
        if (plan->job.method->needs_aux) {
            input[n++] = &plan->job.aux[m];
        }
    }
    return n;
}

/* Bytes of an element of a tensor in all inputs. */
static int64_t element_bytes(const am_merge_plan *plan, int64_t tensor)
{
    const am_merge_input *input[2 * AM_MAX_MODELS + 1];
    const int n = inputs(plan, input);
    int64_t bytes = 0;
    for (int k = 0; k < n; k++) {
        const int64_t at = input[k]->tensor[tensor];
        bytes += at < 0 ? 0 : am_dtype_bytes(input[k]->source->tensors->t[at].dtype);
    }
    return bytes;
}

/* ---- memory ---- */

/* What does not change with the block, but for windows. */
typedef struct outline {
    int64_t fixed, tile, inputs;
    int64_t element, output; /* bytes of an element: of all inputs, of the output */
    int64_t largest, slice;  /* elements of a tensor, of a rank */
} outline;

static int visits_of(const am_method *method)
{
    int visits = 1;
    for (int p = 0; p < method->n_passes; p++) {
        visits += method->pass[p].sums != NULL ? 1 : am_order_visits(AM_ORDER_MAX_BITS);
    }
    return visits;
}

static int64_t order_bytes(const am_merge_plan *plan, int ranks)
{
    const am_method *method = plan->job.method;
    int64_t bytes = 0;
    for (int p = 0; p < method->n_passes; p++) {
        if (method->pass[p].keys != NULL) {
            bytes = least(ORDERS, (int64_t)STREAM * plan->job.n_models * (ranks > 1 ? 2 : 1));
        }
    }
    return bytes;
}

static outline outline_of(const am_merge_plan *plan, int ranks, int64_t process)
{
    const am_method *method = plan->job.method;
    const am_tensor_table *tensors = &plan->match.pieces;
    const am_merge_input *input[2 * AM_MAX_MODELS + 1];
    outline o = {.tile = AM_TILE, .inputs = inputs(plan, input)};
    int64_t scratch = method->scratch != NULL ? method->scratch(plan->job.n_models) : 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        o.element = most(o.element, element_bytes(plan, i));
        o.output = most(o.output, am_dtype_bytes(t->dtype));
        o.largest = most(o.largest, t->numel);
        if (method->by_rows != NULL && t->ndim > 1) {
            o.tile = most(o.tile, t->shape[t->ndim - 1]);
        }
    }
    o.fixed =
        process + order_bytes(plan, ranks) + scratch * o.tile * (int64_t)sizeof(double) + ROOM;
    return o;
}

static int64_t peak_of(const outline *o, int64_t block)
{
    const int64_t real = sizeof(double), batch = least(most(block, o->tile), o->slice);
    const int64_t window = most(o->tile, least(block, WINDOW));
    return o->fixed + (o->inputs + 1) * window * real + batch * real +
           least(2 * batch, o->slice) * o->element +
           least(2 * least(PIECE, batch * o->output), o->slice * o->output);
}

/* The largest useful block within the budget, in tiles; 0: there is none. */
static int64_t choose_block(const outline *o, const am_method *method, int64_t memory)
{
    const int64_t useful = method->n_passes > 0 ? most(o->largest, USUAL_BLOCK) : USUAL_BLOCK;
    int64_t lo = 0, hi = (useful + AM_TILE - 1) / AM_TILE;
    while (lo < hi) {
        const int64_t middle = lo + (hi - lo + 1) / 2;
        if (peak_of(o, middle * AM_TILE) <= memory) {
            lo = middle;
        } else {
            hi = middle - 1;
        }
    }
    return lo * AM_TILE;
}

/* ---- bytes of files ---- */

/* Bytes that one rank reads: a tensor that is whole and fits a block once, others in each visit. */
static int64_t read_of(const am_merge_plan *plan, const am_slice *slice, int64_t block)
{
    const am_tensor_table *tensors = &plan->match.pieces;
    const am_merge_job *job = &plan->job;
    int64_t bytes = 0;
    for (int64_t i = 0; i < slice->n; i++) {
        const am_span *s = &slice->spans[i];
        const int64_t n = s->hi - s->lo;
        const bool again =
            n > block || n < tensors->t[s->tensor].numel || job->scope == AM_SCOPE_GLOBAL;
        bytes += job->copy[s->tensor]
                     ? n * am_dtype_bytes(tensors->t[s->tensor].dtype)
                     : n * element_bytes(plan, s->tensor) * (again ? visits_of(job->method) : 1);
    }
    return bytes;
}

static int count_bytes(const am_merge_plan *plan, int ranks, am_merge_need *out)
{
    out->read = out->written = 0;
    for (int r = 0; r < ranks; r++) {
        am_slice slice;
        int rc = am_slice_make(&plan->match.pieces, AM_BLOCK, ranks, r, &slice);
        if (rc != 0) {
            return rc;
        }
        out->read = most(out->read, read_of(plan, &slice, out->block));
        out->written = most(out->written, slice.bytes);
        am_slice_free(&slice);
    }
    return 0;
}

/* Elements of the longest slice. */
static int longest_slice(const am_merge_plan *plan, int ranks, int64_t *elements)
{
    *elements = 0;
    for (int r = 0; r < ranks; r++) {
        am_slice slice;
        int rc = am_slice_make(&plan->match.pieces, AM_BLOCK, ranks, r, &slice);
        if (rc != 0) {
            return rc;
        }
        *elements = most(*elements, slice.elements);
        am_slice_free(&slice);
    }
    return 0;
}

int am_merge_fit(const am_merge_plan *plan, int ranks, int64_t memory, int64_t block,
                 int64_t process, am_merge_need *out)
{
    outline o = outline_of(plan, ranks, process);
    const int64_t mib = 1 << 20;
    int rc = longest_slice(plan, ranks, &o.slice);
    if (rc != 0) {
        return rc;
    }
    const int64_t smallest = peak_of(&o, AM_TILE);
    *out = (am_merge_need){.process = process, .visits = visits_of(plan->job.method)};
    out->block = block > 0 ? block : choose_block(&o, plan->job.method, memory);
    if (out->block == 0) {
        return am_fail(AM_E_USAGE,
                       "--memory %lld MiB is too little for this merge: give it %lld MiB or more",
                       (long long)(memory / mib), (long long)((smallest + mib - 1) / mib));
    }
    out->peak = peak_of(&o, out->block);
    return count_bytes(plan, ranks, out);
}
