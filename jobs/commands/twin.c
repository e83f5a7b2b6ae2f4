/* allmerge twin RECIPE -o RUN/: a shared model, compressed twins and a router.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/twin/job.h"

typedef struct twin_options {
    char *output;
    bool overwrite;
    int64_t memory;
} twin_options;

static const am_param options[] = {
    {"output", AM_PARAM_STRING, offsetof(twin_options, output), NULL, 0, 0, NULL,
     "run folder: shared.h5, twins/TASK.h5, router.h5, heads.h5, result.json"},
    {"overwrite", AM_PARAM_BOOL, offsetof(twin_options, overwrite), "no", 0, 0, NULL,
     "start over in a folder that holds another run"},
    {"memory", AM_PARAM_BYTES, offsetof(twin_options, memory), "0", 0, INT64_MAX, NULL,
     "what a rank may take: data sets that do not fit are read in pages; 0: any"},
    {0},
};

static void describe(const am_iterate *it, const am_job *job, am_json *json)
{
    (void)job;
    am_table_json(&it->table, json);
}

static int run_all(const am_args *args, int *exit_status)
{
    const twin_options *given = args->options;
    const am_job job = {.name = "twin",
                        .output = given->output,
                        .overwrite = given->overwrite,
                        .check = am_twin_check,
                        .inputs = am_twin_inputs,
                        .work_all = am_twin_work_all,
                        .describe = describe,
                        .text = am_job_table,
                        .model = "shared.h5",
                        .save_every = AM_PACE_AUTO,
                        .kind = AM_JOB_TWIN,
                        .memory = given->memory};
    (void)exit_status;
    return am_job_run_all(args, &job);
}

const am_command am_command_twin = {
    .name = "twin",
    .synopsis = "RECIPE -o RUN/ [--memory SIZE] [--overwrite] [--set KEY=VALUE]...",
    .summary = "Twin-Merging: a shared model, a compressed twin of every task, and a router",
    .help = "Takes a model of every task (twin: models:), the base and the heads they were tuned "
            "with. What the section merge makes of them with twin.lambda is the shared model; a "
            "twin is what a task's model has beside it, cut to its leading singular directions or "
            "its largest elements; the router learns from one half of the validation data "
            "which task a sample is of, by what the heads get of the shared model; scores on "
            "validation data are of the other half. Test data is evaluated with shared + "
            "sum of weight times twin, weights by the router for each sample (twin.route: soft), "
            "or with the twin of the likeliest task (top1). The same bytes for any number of "
            "ranks. `eval --twins RUN/` evaluates the folder again.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(twin_options),
    .takes_set = true,
    .run_all = run_all,
};
