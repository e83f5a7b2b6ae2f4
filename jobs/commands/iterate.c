/* allmerge iterate RECIPE -o RUN/: iterative task arithmetic and what it is compared with.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "jobs/training/job.h"

typedef struct iterate_options {
    char *output;
    bool overwrite, fresh;
} iterate_options;

static const am_param options[] = {
    {"output", AM_PARAM_STRING, offsetof(iterate_options, output), NULL, 0, 0, NULL,
     "run folder: final.h5, base.h5, heads.h5, rounds/, result.json, events.jsonl"},
    {"overwrite", AM_PARAM_BOOL, offsetof(iterate_options, overwrite), "no", 0, 0, NULL,
     "start over in a folder that holds another run"},
    {"fresh", AM_PARAM_BOOL, offsetof(iterate_options, fresh), "no", 0, 0, NULL,
     "start over where an interrupted run left off; the same as --overwrite"},
    {0},
};

static int work_all(am_iterate *it, const am_run_folder *folder, const am_job *job)
{
    (void)job;
    return am_iterate_run_all(it, folder);
}

static int run_all(const am_args *args, int *exit_status)
{
    const iterate_options *given = args->options;
    const am_job job = {.name = "iterate",
                        .output = given->output,
                        .overwrite = given->overwrite || given->fresh,
                        .work_all = work_all,
                        .describe = am_iterate_json,
                        .model = "final.h5"};
    (void)exit_status;
    return am_job_run_all(args, &job);
}

const am_command am_command_iterate = {
    .name = "iterate",
    .synopsis = "RECIPE -o RUN/ [--overwrite] [--fresh] [--set KEY=VALUE]...",
    .summary = "iterative task arithmetic: finetune every task, merge, repeat; and compare",
    .help = "Trains or loads a base, probes one linear head a task, then compares one-shot merges, "
            "rounds of finetuning and merging, individual models and joint training in one table. "
            "Alphas and stopping rounds are chosen on validation data, the test data is used once. "
            "The results are the same bytes for any number of ranks. A finished run is recognised; "
            "an unfinished one is run again. Recipe keys: jobs/README.md.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(iterate_options),
    .takes_set = true,
    .run_all = run_all,
};
