/* allmerge theory RECIPE -o RUN/: task vectors against gradients, theorems 1 and 2 of arXiv
 * 2508.16082, measured. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "jobs/theory/theory.h"

typedef struct theory_options {
    char *output;
    bool overwrite, fresh;
    int64_t memory;
} theory_options;

static const am_param options[] = {
    {"output", AM_PARAM_STRING, offsetof(theory_options, output), NULL, 0, 0, NULL,
     "run folder: result.json, table.txt, base.h5, heads.h5, events.jsonl"},
    {"overwrite", AM_PARAM_BOOL, offsetof(theory_options, overwrite), "no", 0, 0, NULL,
     "start over in a folder that holds another run"},
    {"fresh", AM_PARAM_BOOL, offsetof(theory_options, fresh), "no", 0, 0, NULL,
     "start over where an interrupted run left off; the same as --overwrite"},
    {"memory", AM_PARAM_BYTES, offsetof(theory_options, memory), "0", 0, INT64_MAX, NULL,
     "what a rank may take: data sets that do not fit are read in pages; 0: any"},
    {0},
};

static int run_all(const am_args *args, int *exit_status)
{
    const theory_options *given = args->options;
    am_theory theory = {0};
    const am_job job = {.name = "theory",
                        .output = given->output,
                        .overwrite = given->overwrite || given->fresh,
                        .self = &theory,
                        .check = am_theory_check,
                        .work_all = am_theory_work_all,
                        .describe = am_theory_json,
                        .text = am_theory_text,
                        .save_every = AM_PACE_AUTO,
                        .kind = AM_JOB_THEORY,
                        .memory = given->memory};
    (void)exit_status;
    const int rc = am_job_run_all(args, &job);
    am_theory_free(&theory);
    return rc;
}

const am_command am_command_theory = {
    .name = "theory",
    .synopsis = "RECIPE -o RUN/ [--memory SIZE] [--overwrite] [--fresh] [--set KEY=VALUE]...",
    .summary = "measure how far task vectors are from gradients, to third order in the step",
    .help =
        "Uses the recipe of iterate with a section theory: (jobs/training/README.md). For every "
        "number of tasks, alpha, k and eta: k epochs of full-batch gradient descent on each task "
        "and on their sum, the gap between the merged task vectors and multitask descent, its "
        "second-order term by exact Hessian-vector products, what is left, the slopes of both in "
        "eta, the bounds of |C| and how much of them it takes; gradients by epoch; and, if "
        "theory.spectrum asks for them, the largest eigenvalues of Hessians. The results are the "
        "same bytes for any number of ranks. An interrupted run goes on.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(theory_options),
    .takes_set = true,
    .run_all = run_all,
};
