/* allmerge regmean RECIPE -o RUN/: RegMean++ of models, with the data of their tasks.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/regmean/job.h"

typedef struct regmean_options {
    char *output;
    bool overwrite;
    int64_t memory;
} regmean_options;

static const am_param options[] = {
    {"output", AM_PARAM_STRING, offsetof(regmean_options, output), NULL, 0, 0, NULL,
     "run folder: merged.h5, heads.h5, result.json, events.jsonl"},
    {"overwrite", AM_PARAM_BOOL, offsetof(regmean_options, overwrite), "no", 0, 0, NULL,
     "start over in a folder that holds another run"},
    {"memory", AM_PARAM_BYTES, offsetof(regmean_options, memory), "0", 0, INT64_MAX, NULL,
     "what a rank may take: data sets that do not fit are read in pages; 0: any"},
    {0},
};

static void describe(const am_iterate *it, const am_job *job, am_json *json)
{
    (void)job;
    am_json_string(json, "split", am_dataset_split_name[it->recipe->regmean.split]);
    am_table_json(&it->table, json);
}

static int run_all(const am_args *args, int *exit_status)
{
    const regmean_options *given = args->options;
    const am_job job = {.name = "regmean",
                        .output = given->output,
                        .overwrite = given->overwrite,
                        .check = am_regmean_check,
                        .inputs = am_regmean_inputs,
                        .work_all = am_regmean_work_all,
                        .describe = describe,
                        .text = am_job_table,
                        .model = "merged.h5",
                        .save_every = AM_PACE_AUTO,
                        .kind = AM_JOB_REGMEAN,
                        .memory = given->memory};
    (void)exit_status;
    return am_job_run_all(args, &job);
}

const am_command am_command_regmean = {
    .name = "regmean",
    .synopsis = "RECIPE -o RUN/ [--memory SIZE] [--overwrite] [--set KEY=VALUE]...",
    .summary = "RegMean++: least squares layer by layer, behind the layers that are merged already",
    .help = "Takes a model of every task (regmean: models:), the base and the heads they were "
            "tuned with, and the data of the tasks. Layer after layer, samples of each task run "
            "through the layers that are merged, the Gram matrix of what the next layer gets is "
            "made, and its weights are the least-squares mean of the tasks' weights; all else is "
            "averaged. merged.h5 is the same bytes for any number of ranks. Interrupted, the same "
            "command goes on after the last layer that is done. `merge_method: regmean` is the "
            "method without data, from files of `allmerge stats`.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(regmean_options),
    .takes_set = true,
    .run_all = run_all,
};
