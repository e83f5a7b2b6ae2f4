/* allmerge train RECIPE -o RUN/: one model on one task, or on all tasks together, data-parallel.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "jobs/training/suite/adapt.h"
#include "jobs/training/job.h"
#include "jobs/training/room.h"
#include "jobs/training/session.h"
#include "jobs/training/suite/scores.h"
#include "mpi/agree.h"
#include "mpi/log.h"

typedef struct train_options {
    char *output, *task;
    bool overwrite, fresh;
    double save_every;
    int64_t memory;
} train_options;

static const am_param options[] = {
    {"output", AM_PARAM_STRING, offsetof(train_options, output), NULL, 0, 0, NULL,
     "run folder: trunk.h5, base.h5, heads.h5, result.json, events.jsonl"},
    {"task", AM_PARAM_STRING, offsetof(train_options, task), "", 0, 0, NULL,
     "train on this task of the recipe alone (keys of finetune:); else on all (joint:)"},
    {"overwrite", AM_PARAM_BOOL, offsetof(train_options, overwrite), "no", 0, 0, NULL,
     "start over in a folder that holds another run"},
    {"fresh", AM_PARAM_BOOL, offsetof(train_options, fresh), "no", 0, 0, NULL,
     "start over where an interrupted run left off; the same as --overwrite"},
    {"save_every", AM_PARAM_REAL, offsetof(train_options, save_every), "-1", -1, 1e9, NULL,
     "seconds between saved states; -1: as often as costs less than 2 % of the time"},
    {"memory", AM_PARAM_BYTES, offsetof(train_options, memory), "0", 0, INT64_MAX, NULL,
     "what a rank may take: data sets that do not fit are read in pages; 0: any"},
    {0},
};

static int epochs_all(am_iterate *it, const am_train_section *section, int64_t epochs,
                      double save_every)
{
    am_session session = {0}; /* with the optimiser's state, over all epochs */
    const int64_t seed = it->recipe->seed;
    int rc = AM_OK;
    void *trained = it->final; /* or a trunk with adapters */
    memcpy(it->final, it->base, (size_t)(it->suite.trunk.n * am_suite_real_bytes(&it->suite)));
    am_train_options train = am_train_section_options(section, seed, "train", 1, 0, epochs);
    train.epochs = 1;
    rc = am_adapt_begin(&it->suite, it->suite.n, it->final, &train, &trained);
    AM_AGREE(it->suite.comm);
    AM_TRY(am_session_open_all(&it->suite, it->folder, trained, &train, save_every, &session));
    while (session.epoch <= epochs) {
        const int64_t epoch = session.epoch;
        am_table_choice how = {.alpha = NAN, .epochs = epoch, .round = -1};
        train = am_train_section_options(section, seed, "train", epoch, epoch - 1, epochs);
        train.epochs = 1;
        AM_TRY(am_session_epoch_all(&session, &train));
        rc = am_adapt_end(&it->suite, trained, it->final);
        AM_AGREE(it->suite.comm);
        AM_TRY(am_iterate_validate_all(it, "train", it->final, &how));
        am_info("epoch %lld of %lld: validation accuracy %.4f, loss %.4f bits", (long long)epoch,
                (long long)epochs, how.validation, am_scores_bits(how.validation_loss));
    }
    rc = am_adapt_end(&it->suite, trained, it->final); /* the session may have had all epochs */
    AM_AGREE(it->suite.comm);
    AM_TRY(am_adapt_save_all(&it->suite, it->folder, trained));
    am_table_choice last = {.alpha = NAN, .epochs = epochs, .round = -1};
    AM_TRY(am_iterate_validate_all(it, "train", it->final, &last));
    AM_TRY(am_iterate_test_all(it, "trained", "trained model", it->final, last));
cleanup:
    am_session_close(&session);
    return rc;
}

static int work_all(am_iterate *it, const am_run_folder *folder, const am_job *job)
{
    const am_train_recipe *recipe = it->recipe;
    const am_train_section *section = recipe->n_tasks == 1 ? &recipe->finetune : &recipe->joint;
    am_table_choice how = {.alpha = NAN, .epochs = 0, .round = -1};
    int rc = AM_OK;
    AM_TRY(am_room_check_all(it->suite.comm, folder, am_room_of_train(it, section)));
    AM_TRY(am_iterate_prepare_all(it, folder, job->save_every));
    AM_TRY(am_iterate_validate_all(it, "base", it->base, &how));
    AM_TRY(am_iterate_test_all(it, "base", "base", it->base, how));
    AM_TRY(epochs_all(it, section,
                      section->epochs > 0 ? section->epochs : am_train_recipe_joint_epochs(recipe),
                      job->save_every));
    AM_TRY(am_iterate_save_all(it, "trunk.h5", it->final));
    AM_TRY(am_saver_end_all(&it->saver, it->suite.comm));
cleanup:
    return rc;
}

static void describe(const am_iterate *it, const am_job *job, am_json *json)
{
    (void)job;
    am_table_json(&it->table, json);
}

static int run_all(const am_args *args, int *exit_status)
{
    const train_options *given = args->options;
    const am_job job = {.name = "train",
                        .output = given->output,
                        .task = given->task,
                        .overwrite = given->overwrite || given->fresh,
                        .work_all = work_all,
                        .describe = describe,
                        .text = am_job_table,
                        .model = "trunk.h5",
                        .save_every = given->save_every,
                        .kind = AM_JOB_TRAIN,
                        .memory = given->memory};
    (void)exit_status;
    return am_job_run_all(args, &job);
}

const am_command am_command_train = {
    .name = "train",
    .synopsis =
        "RECIPE -o RUN/ [--task NAME] [--memory SIZE] [--overwrite] [--fresh] [--set KEY=VALUE]...",
    .summary = "train one model on a task, or on all tasks together",
    .help =
        "Uses the recipe of iterate. With --task the model is finetuned on that task from the base "
        "(epochs and optimiser of finetune:), ready to be merged; without it on all tasks "
        "(joint:). Heads are frozen. All ranks work on one model, data-parallel; the result is "
        "the same bytes for any number of ranks.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(train_options),
    .takes_set = true,
    .run_all = run_all,
};
