/* allmerge merge RECIPE -o OUT: merge checkpoints by a recipe in mergekit's form.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/file.h"
#include "io/commit/identity.h"
#include "io/commit/publish.h"
#include "jobs/command.h"
#include "jobs/merge/accounting.h"
#include "jobs/merge/folder.h"
#include "jobs/merge/grid.h"
#include "jobs/merge/left.h"
#include "jobs/merge/memory.h"
#include "jobs/merge/plan.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

enum { AM_IO_POSIX, AM_IO_MPIIO };

typedef struct merge_options {
    char *output, *accounting;
    bool overwrite, fresh, allow_nonfinite;
    int64_t seed, block_bytes, memory, shard_bytes;
    double save_every;
    int io;
} merge_options;

#define AM_AT(member) offsetof(merge_options, member)
static const am_param options[] = {
    {"output", AM_PARAM_STRING, AM_AT(output), NULL, 0, 0, NULL,
     "output: NAME.safetensors, NAME.h5, or a folder"},
    AM_OPTION_OVERWRITE(merge_options),
    {"fresh", AM_PARAM_BOOL, AM_AT(fresh), "false", 0, 0, NULL,
     "start over where an interrupted job left off"},
    {"save_every", AM_PARAM_REAL, AM_AT(save_every), "-1", -1, 1e9, NULL,
     "seconds between records of what is done; -1: as often as costs less than 2 % of the time"},
    {"seed", AM_PARAM_INT, AM_AT(seed), "-1", -1, INT64_MAX, NULL,
     "seed of random methods, before the recipe's; -1: the recipe's"},
    {"memory", AM_PARAM_BYTES, AM_AT(memory), "256MiB", 1 << 20, INT64_MAX, NULL,
     "what a rank may take, the whole process; any size gives the same output"},
    {"block", AM_PARAM_BYTES, AM_AT(block_bytes), "0", 0, 1LL << 40, NULL,
     "batch read ahead and written at a time, 8 bytes an element; 0: as --memory allows"},
    {"shard_size", AM_PARAM_BYTES, AM_AT(shard_bytes), "5GB", 1, 1LL << 60, NULL,
     "largest file of an output folder, but for a tensor that is larger alone"},
    {"accounting", AM_PARAM_STRING, AM_AT(accounting), "", 0, 0, NULL,
     "a JSON file: for each tensor, elements of the update that rounding lost, NaN, infinities"},
    {"io", AM_PARAM_CHOICE, AM_AT(io), "posix", 0, 0, "posix|mpiio", "how files are written"},
    {"allow_nonfinite", AM_PARAM_BOOL, AM_AT(allow_nonfinite), "false", 0, 0, NULL,
     "merge inputs with NaN or infinite values"},
    {0}};
#undef AM_AT

static int refuse_mpiio(const merge_options *o)
{
    return o->io == AM_IO_MPIIO
               ? am_fail(AM_E_USAGE,
                         "--io mpiio is refused: with this MPI and HDF5 a full disk or an I/O "
                         "error hangs the job or loses data without an error; use --io posix")
               : 0;
}

/* The output's own check comes with its lock; here only the file of --accounting, rank 0's view. */
static int refuse_existing(const merge_options *o)
{
    return o->accounting != NULL && !o->overwrite && am_world_rank() == 0 &&
                   access(o->accounting, F_OK) == 0
               ? am_fail(AM_E_CREATE, "%s exists: add --overwrite to replace it", o->accounting)
               : 0;
}

/* The file OUT.halt asks the job to stop. */
static int watch_halt(const merge_options *o)
{
    char *clean = am_clean_path(o->output);
    char *path = clean != NULL ? am_text("%s.halt", clean) : NULL;
    const int rc = path != NULL ? am_stop_on_file(path) : AM_E_NOMEM;
    free(clean);
    free(path);
    return rc;
}

/* --seed N stands in the recipe like --set seed=N, so that the manifest shows it. */
static int plan_all(const am_args *args, am_merge_plan *plan)
{
    const merge_options *o = args->options;
    char text[64];
    char *set[] = {text};
    char *const *all = args->set;
    int n = args->n_set;
    am_merge_options mo = {.block = (o->block_bytes + 7) / (int64_t)sizeof(double),
                           .memory = o->memory,
                           .allow_nonfinite = o->allow_nonfinite};
    if (o->seed >= 0) {
        (void)snprintf(text, sizeof text, "seed=%" PRId64, o->seed);
        args->set[n++] = set[0];
    }
    mo.n_set = n;
    mo.set = all;
    return am_merge_plan_all(am_world(), args->positional[0], &mo, plan);
}

static int make_meta(const am_merge_plan *plan, am_meta *meta)
{
    int rc = am_meta_set(meta, "format", "pt"); /* what readers of this format expect */
    AM_KEEP(am_meta_set(meta, "allmerge.method", plan->recipe.method->name));
    AM_KEEP(am_meta_set(meta, "allmerge.recipe", plan->resolved.text));
    return rc;
}

static const char *format_name(const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot != NULL && strcmp(dot, ".safetensors") == 0) {
        return "safetensors";
    }
    return dot != NULL && (strcmp(dot, ".h5") == 0 || strcmp(dot, ".hdf5") == 0) ? "h5" : "hf";
}

/* Merge into the sink of the output; pieces of a tensor, and the accounting, stand before it. */
static int merge_all(const merge_options *o, am_merge_plan *plan, const am_slice *slice,
                     const am_sink *sink, am_merge_result *result, am_accounting *accounting)
{
    const am_sink_view view = {.sink = sink, .place = plan->match.at};
    am_sink parts = {0}, counted = {0};
    int rc = 0;
    am_sink_view_make(&view, &plan->match.pieces, &parts);
    plan->job.sink = plan->match.has_parts ? &parts : sink;
    if (o->accounting != NULL) {
        rc = am_accounting_start(plan, plan->job.sink, accounting, &counted);
        plan->job.sink = &counted;
    }
    AM_AGREE(am_world());
    AM_TRY(am_merge_run_all(am_world(), &plan->job, slice, result));
    if (o->accounting != NULL) {
        AM_TRY(am_accounting_sum_all(am_world(), accounting));
    }
cleanup:
    plan->job.sink = NULL;
    return rc;
}

/* What the job is, for the journal; rank 0. None with --accounting, whose counts no journal keeps.
 */
static int identify(const merge_options *o, const am_merge_plan *plan, char **out)
{
    if (am_world_rank() != 0 || o->accounting != NULL) {
        return 0;
    }
    const bool has_shards = strcmp(format_name(o->output), "hf") == 0;
    char *job =
        has_shards ? am_text("merge --shard-size %" PRId64, o->shard_bytes) : am_text("merge");
    int rc = job == NULL ? AM_E_NOMEM : 0;
    AM_KEEP(am_identity_make(job, plan->resolved.text, true, plan->inputs.files, out));
    free(job);
    return rc;
}

/* Merge what is left and publish it, or leave it to the next attempt. */
static int make_all(const merge_options *o, am_merge_plan *plan, am_ckpt_writer *writer,
                    am_merge_result *result, am_accounting *accounting)
{
    am_slice slice = {0};
    am_sink sink = {0};
    int rc = am_ckpt_sink(writer, &sink);
    AM_KEEP(am_merge_left(plan, writer, am_world_size(), am_world_rank(), &slice));
    rc = am_agree_all(am_world(), rc);
    if (rc == 0) {
        rc = merge_all(o, plan, &slice, &sink, result, accounting);
    }
    am_slice_free(&slice);
    return am_ckpt_publish_all(&writer, rc);
}

/* Create the output, or go on with it. *was_finished: it is there already. */
static int write_all(const merge_options *o, am_merge_plan *plan, const am_meta *meta,
                     am_merge_result *result, am_accounting *accounting, bool *was_finished)
{
    am_ckpt_writer *writer = NULL;
    am_companions companions = {0};
    char *identity = NULL;
    am_ckpt_options co = {.overwrite = o->overwrite,
                          .accept_finished = o->accounting == NULL,
                          .meta = meta,
                          .recipe = plan->resolved.text,
                          .inputs = plan->inputs.files,
                          .shard_bytes = o->shard_bytes,
                          .companions = &companions,
                          .fresh = o->fresh,
                          .save_every = o->save_every};
    char *grid = NULL;
    int64_t on_grid = 0;
    int rc = identify(o, plan, &identity);
    AM_KEEP(am_merge_grid_json(plan, &on_grid, &grid));
    AM_AGREE(am_world());
    co.identity = identity;
    co.grid = grid;
    if (strcmp(format_name(o->output), "hf") == 0) {
        AM_TRY(am_merge_companions_all(am_world(), plan, &companions));
    }
    AM_TRY(am_ckpt_create_all(am_world(), o->output, &plan->match.output, &co, &writer));
    *was_finished = writer == NULL; /* the same on every rank */
    rc = writer != NULL ? make_all(o, plan, writer, result, accounting) : 0;
cleanup:
    free(identity);
    free(grid);
    am_companions_free(&companions);
    return rc;
}

/* Choose the block before anything is written. */
static int fit_all(const merge_options *o, am_merge_plan *plan)
{
    am_process process = {0};
    am_merge_need need = {0};
    int rc = am_memory_process_all(am_world(), &process);
    if (rc == 0) {
        rc = am_agree_all(am_world(), am_merge_fit(plan, am_world_size(), o->memory,
                                                   plan->job.block, &process, &need));
    }
    plan->job.block = need.block;
    plan->job.unit_bytes = need.unit_bytes;
    return rc;
}

static int report_all(const merge_options *o, const am_merge_plan *plan,
                      const am_merge_result *result, const am_accounting *accounting,
                      bool was_finished, double seconds)
{
    int64_t sums[] = {result->bytes_read, result->bytes_written};
    am_process process = {0};
    am_json j = {0};
    int rc = am_memory_process_all(am_world(), &process);
    AM_KEEP(am_sum_i64_all(am_world(), sums, 2)); /* agreed: no rank is alone here */
    if (rc != 0) {
        return rc;
    }
    am_json_object(&j, NULL);
    am_json_string(&j, "output", o->output);
    am_json_string(&j, "format", format_name(o->output));
    am_json_string(&j, "method", plan->recipe.method->name);
    am_json_int(&j, "models", plan->recipe.n_slots);
    am_json_int(&j, "tensors", plan->match.output.n);
    am_json_int(&j, "parameters", am_tensor_table_numel(&plan->match.output));
    am_json_int(&j, "read_bytes", sums[0]);
    am_json_int(&j, "written_bytes", sums[1]);
    if (o->accounting != NULL) {
        am_json_object(&j, "accounting");
        am_accounting_totals(accounting, &j);
        am_json_end_object(&j);
    }
    am_json_bool(&j, "was_finished", was_finished);
    am_json_int(&j, "peak_bytes", process.peak);
    am_json_real(&j, "seconds", seconds);
    am_json_end_object(&j);
    rc = am_json_finish(&j);
    if (o->accounting != NULL && am_world_rank() == 0) {
        AM_KEEP(am_accounting_save(accounting, o->accounting));
    }
    if (rc == 0) {
        am_result(&j);
    }
    am_json_free(&j);
    return am_agree_all(am_world(), rc);
}

static int run_all(const am_args *args, int *exit_status)
{
    const merge_options *o = args->options;
    const double start = am_seconds();
    am_merge_plan plan = {0};
    am_merge_result result = {0};
    am_meta meta = {0};
    bool was_finished = false;
    (void)exit_status;
    am_memory_keep_no_holes();
    am_accounting accounting = {0};
    int rc = refuse_mpiio(o);
    AM_KEEP(refuse_existing(o));
    AM_KEEP(watch_halt(o));
    AM_AGREE(am_world());
    AM_TRY(plan_all(args, &plan));
    am_info("%s: %d models, %" PRId64 " tensors, %" PRId64 " parameters", plan.recipe.method->name,
            plan.recipe.n_slots, plan.match.output.n, am_tensor_table_numel(&plan.match.output));
    AM_TRY(fit_all(o, &plan));
    rc = make_meta(&plan, &meta);
    AM_AGREE(am_world());
    AM_TRY(write_all(o, &plan, &meta, &result, &accounting, &was_finished));
    if (was_finished) {
        am_info("%s is there, made by this recipe from these inputs: nothing to do (--overwrite "
                "makes it again)",
                o->output);
    }
    rc = report_all(o, &plan, &result, &accounting, was_finished, am_seconds() - start);
cleanup:
    am_accounting_free(&accounting);
    am_meta_free(&meta);
    am_merge_plan_free(&plan);
    return rc;
}

const am_command am_command_merge = {
    .name = "merge",
    .synopsis =
        "RECIPE -o OUT [--overwrite] [--fresh] [--memory SIZE] [--seed N] [--set KEY=VALUE]... "
        "[--block SIZE] "
        "[--shard-size SIZE] [--accounting FILE] [--io posix|mpiio] [--allow-nonfinite]",
    .summary = "Merge checkpoints by a recipe in mergekit's form.",
    .help = "Inputs are safetensors files, HDF5 files or folders in Hugging Face layout, given in "
            "the recipe relative to the working folder, or else all to the folder of the recipe. "
            "Everything is computed in double precision and rounded once. The output appears when "
            "it is complete; it is the same, byte for byte, for any number of ranks. "
            "Interrupted, the same command goes on where it was; finished, it does nothing.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(merge_options),
    .takes_set = true,
    .run_all = run_all,
};
