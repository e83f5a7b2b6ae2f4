/* allmerge iterate RECIPE -o RUN/: iterative task arithmetic and what it is compared with.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "jobs/training/iterate/plane.h"
#include "jobs/training/job.h"
#include "jobs/training/room.h"
#include "mpi/agree.h"

typedef struct iterate_options {
    char *output;
    bool overwrite, fresh;
    double save_every;
    int64_t memory;
} iterate_options;

static const am_param options[] = {
    {"output", AM_PARAM_STRING, offsetof(iterate_options, output), NULL, 0, 0, NULL,
     "run folder: final.h5, base.h5, heads.h5, rounds/, result.json, events.jsonl"},
    {"overwrite", AM_PARAM_BOOL, offsetof(iterate_options, overwrite), "no", 0, 0, NULL,
     "start over in a folder that holds another run"},
    {"fresh", AM_PARAM_BOOL, offsetof(iterate_options, fresh), "no", 0, 0, NULL,
     "start over where an interrupted run left off; the same as --overwrite"},
    {"save_every", AM_PARAM_REAL, offsetof(iterate_options, save_every), "-1", -1, 1e9, NULL,
     "seconds between saved states of what trains; -1: as often as costs less than 2 % of the "
     "time"},
    {"memory", AM_PARAM_BYTES, offsetof(iterate_options, memory), "0", 0, INT64_MAX, NULL,
     "what a rank may take: data sets that do not fit are read in pages; 0: any"},
    {0},
};

static int check_methods(const am_comparison *comparison, const char *section, int n_tasks)
{
    int rc = AM_OK;
    for (int i = 0; i < comparison->n_methods; i++) {
        AM_KEEP(am_train_merge_check(&comparison->method[i], section, n_tasks));
    }
    return rc;
}

static int check_stats(const am_train_recipe *r)
{
    return am_train_recipe_needs_stats(r) && r->model.linearised
               ? am_fail(AM_E_RECIPE, "statistics, which fisher and regmean need, are of full "
                                      "networks: leave out model.linearised, or these methods")
               : AM_OK;
}

static int check_plane(const am_train_recipe *r)
{
    const int64_t n = am_plane_models(r);
    return !r->plane.is_given || n <= AM_MAX_MODELS
               ? AM_OK
               : am_fail(AM_E_RECIPE,
                         "plane: up to %lld models of the run, at most %d can be drawn: fewer "
                         "one_shot.epochs or methods, or a smaller joint.epochs or iterate.keep",
                         (long long)n, AM_MAX_MODELS);
}

/* Twins are of the models that the run tunes. */
static int check_twin(const am_train_recipe *r)
{
    if (r->has_twin && r->twin.models != NULL) {
        return am_fail(AM_E_RECIPE, "twin.models: iterate makes twins of the models that it tunes: "
                                    "leave it out, or use allmerge twin");
    }
    if (r->has_twin && r->model.linearised) {
        return am_fail(AM_E_RECIPE, "twins are of models as they are: set model.linearised to no");
    }
    int rc = r->has_twin ? am_train_merge_check_shared(&r->merge, r->n_tasks) : AM_OK;
    for (int i = 0; rc == AM_OK && r->has_twin && i < r->one_shot.n_methods; i++) {
        if (strcmp(r->one_shot.method[i].name, AM_TWIN_ROW) == 0) {
            return am_fail(AM_E_RECIPE,
                           "one_shot: a merge is called %s, as the row of the section "
                           "twin is: give it another name",
                           AM_TWIN_ROW);
        }
    }
    return rc;
}

static int check(const am_train_recipe *recipe)
{
    int rc = check_methods(&recipe->one_shot, "one_shot", recipe->n_tasks);
    AM_KEEP(check_methods(&recipe->iterate, "iterate", recipe->n_tasks));
    AM_KEEP(check_stats(recipe));
    AM_KEEP(check_plane(recipe));
    AM_KEEP(check_twin(recipe));
    return rc;
}

static int work_all(am_iterate *it, const am_run_folder *folder, const am_job *job)
{
    int64_t bytes = 0;
    int rc = am_room_of_iterate(it, &bytes);
    AM_AGREE(it->suite.comm);
    AM_TRY(am_room_check_all(it->suite.comm, folder, bytes));
    AM_TRY(am_iterate_run_all(it, folder, job->save_every));
cleanup:
    return rc;
}

static void describe(const am_iterate *it, const am_job *job, am_json *json)
{
    (void)job;
    am_iterate_json(it, json);
}

static char *text(const am_iterate *it, const am_job *job)
{
    (void)job;
    return am_iterate_text(it);
}

static int run_all(const am_args *args, int *exit_status)
{
    const iterate_options *given = args->options;
    const am_job job = {.name = "iterate",
                        .output = given->output,
                        .overwrite = given->overwrite || given->fresh,
                        .check = check,
                        .work_all = work_all,
                        .describe = describe,
                        .text = text,
                        .model = "final.h5",
                        .save_every = given->save_every,
                        .kind = AM_JOB_ITERATE,
                        .memory = given->memory};
    (void)exit_status;
    return am_job_run_all(args, &job);
}

const am_command am_command_iterate = {
    .name = "iterate",
    .synopsis = "RECIPE -o RUN/ [--memory SIZE] [--overwrite] [--fresh] [--set KEY=VALUE]...",
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
