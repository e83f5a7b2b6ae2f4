/* Memory of a merge: what the process holds before it, and on top of that
 *
 *   engine   buffers, units and matrices, as it would make them (solver/merge/forecast.h)
 *
 *   inputs   a piece of each, a batch that is visited more than once; adapters, task vectors
 *
 *   output   a piece
 *
 *   room     threads, messages, tables
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/memory.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include "mpi/agree.h"
#include "mpi/reduce.h"
#include "solver/merge/forecast.h"

enum {
    PIECE_IN = 256 << 10,  /* bytes, of each input */
    PIECE_OUT = 1 << 20,   /* bytes, of the writer */
    ROOM = 1 << 19,        /* bytes: threads, messages, tables */
    MARGIN = 1 << 20,      /* bytes: processes differ from run to run */
    PROCESS = 32 << 20,    /* bytes: blocks are chosen for processes of one, two, ... of these */
    UNITS = 16 << 20,      /* bytes of units reduced together, at most */
    USUAL_BLOCK = 4 << 20, /* elements: larger ones gain nothing without passes */
    STEPS = 16             /* sizes of a block between a power of two and the next */
};

/* glibc raises the size from which it maps pages whenever a larger block is freed, unless it is
 * set.
 */
void am_memory_keep_no_holes(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 128 << 10);
    (void)mallopt(M_TRIM_THRESHOLD, 128 << 10);
}

/* A line of /proc/self/status, in bytes. */
static int read_status(const char *key, int64_t *bytes)
{
    char line[256];
    const size_t length = strlen(key);
    long long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    if (f == NULL) {
        return am_fail_errno(AM_E_IO, errno, "cannot read /proc/self/status");
    }
    while (kib < 0 && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, key, length) != 0 || sscanf(line + length, ": %lld kB", &kib) != 1) {
            kib = -1;
        }
    }
    (void)fclose(f);
    *bytes = kib * 1024;
    return kib >= 0 ? 0 : am_fail(AM_E_IO, "no %s in /proc/self/status", key);
}

int am_memory_process_all(MPI_Comm comm, am_process *out)
{
    int64_t bytes[2] = {0};
    int rc = read_status("VmHWM", &bytes[0]);
    AM_KEEP(read_status("VmRSS", &bytes[1]));
    AM_AGREE(comm);
    rc = am_max_i64_all(comm, bytes, 2);
    *out = (am_process){.peak = bytes[0], .now = bytes[1]};
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

static int64_t round_size(int64_t process)
{
    return (process + PROCESS - 1) / PROCESS * PROCESS;
}

/* ---- peak ---- */

/* What does not change with the block. */
typedef struct outline {
    am_forecast *forecast;
    am_process process;
    int ranks;
    int64_t pieces; /* bytes: of files that are read */
    int64_t inputs; /* bytes: adapters, task vectors */
} outline;

/* `load`: elements loaded at once. */
static int64_t inputs_of(const am_merge_plan *plan, int64_t load)
{
    int64_t bytes = 0;
    for (int k = 0; k < plan->inputs.n; k++) {
        bytes += am_model_bytes(plan->inputs.model[k], load);
    }
    return bytes;
}

/* Peak of the process of one rank. */
static int64_t peak_of(const outline *o, const am_merge_cost *c)
{
    const int64_t merge = c->buffers + c->units + c->dense + c->held +
                          least(PIECE_OUT, c->written) + o->pieces + o->inputs + ROOM;
    return most(o->process.peak, o->process.now + merge);
}

/* The largest peak of all ranks. */
static int64_t peak_at(const outline *o, int64_t block)
{
    int64_t peak = 0;
    for (int r = 0; r < o->ranks; r++) {
        const am_merge_cost cost = am_forecast_cost(o->forecast, r, block);
        peak = most(peak, peak_of(o, &cost));
    }
    return peak;
}

/* ---- the block ---- */

/* Blocks to choose from, in elements: 1, 2, ..., 16 tiles, then 17, 18, ..., 32, then 34, 36 and so
 * on. Neighbours are near each other. */
static int64_t block_size(int step)
{
    const int above = step + 1 - STEPS;
    return above <= 0 ? AM_TILE * (int64_t)(step + 1)
                      : AM_TILE * ((int64_t)(STEPS + above % STEPS) << (above / STEPS));
}

static int64_t largest_tensor(const am_tensor_table *tensors)
{
    int64_t numel = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        numel = most(numel, tensors->t[i].numel);
    }
    return numel;
}

/* The largest useful block within the budget; 0: there is none. */
static int64_t largest_block(const outline *o, const am_merge_plan *plan, int64_t memory)
{
    const int64_t useful = plan->job.method->n_passes > 0
                               ? most(largest_tensor(&plan->match.pieces), USUAL_BLOCK)
                               : USUAL_BLOCK;
    int lo = -1, hi = 0;
    while (block_size(hi) < useful) {
        hi++;
    }
    while (lo < hi) {
        const int middle = lo + (hi - lo + 1) / 2;
        if (peak_at(o, block_size(middle)) <= memory) {
            lo = middle;
        } else {
            hi = middle - 1;
        }
    }
    return lo < 0 ? 0 : block_size(lo);
}

/* Whether a tensor stays in memory between two passes over it hangs on the block, and on that what
 * is read. A plan and the merge, whose processes differ by some hundreds of KiB, are to choose the
 * same block: they choose for a process of a round size, and only where none fits, for theirs. */
static int64_t choose_block(const outline *o, const am_merge_plan *plan, int64_t memory)
{
    outline usual = *o;
    usual.process.now = round_size(o->process.now);
    const int64_t block = largest_block(&usual, plan, memory);
    return block > 0 ? block : largest_block(o, plan, memory);
}

/* ---- the need ---- */

static void add_up(const outline *o, am_merge_need *out)
{
    for (int r = 0; r < o->ranks; r++) {
        const am_merge_cost c = am_forecast_cost(o->forecast, r, out->block);
        out->peak = most(out->peak, peak_of(o, &c));
        out->read = most(out->read, c.read);
        out->written = most(out->written, c.written);
        out->total_read += c.read;
        out->total_written += c.written;
        out->visits = c.visits > out->visits ? c.visits : out->visits;
    }
}

static int too_little(const outline *o, int64_t memory)
{
    const int64_t mib = 1 << 20, smallest = peak_at(o, block_size(0)) + MARGIN;
    return am_fail(AM_E_USAGE,
                   "--memory %lld MiB is too little for this merge: give it %lld MiB or more",
                   (long long)(memory / mib), (long long)((smallest + mib - 1) / mib));
}

int am_merge_fit(const am_merge_plan *plan, int ranks, int64_t memory, int64_t block,
                 const am_process *process, am_merge_need *out)
{
    outline o = {.process = *process, .ranks = ranks};
    o.pieces = plan->inputs.n * (int64_t)PIECE_IN;
    am_merge_job job = plan->job;
    job.unit_bytes = least(UNITS, most((memory - round_size(process->now)) / 8, 1 << 20));
    *out = (am_merge_need){.process = *process, .block = block, .unit_bytes = job.unit_bytes};
    int rc = am_forecast_create(&job, &plan->match.pieces, ranks, &o.forecast);
    if (rc == 0) {
        o.inputs = inputs_of(plan, am_forecast_tile(o.forecast));
    }
    if (rc == 0 && block == 0) {
        out->block = choose_block(&o, plan, memory);
        rc = out->block > 0 ? 0 : too_little(&o, memory);
    }
    if (rc == 0) {
        add_up(&o, out);
    }
    am_forecast_free(&o.forecast);
    return rc;
}
