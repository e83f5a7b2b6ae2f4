/* allmerge train RECIPE -o RUN/: one model on one task, or on all tasks together, data-parallel.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/command.h"
#include "jobs/training/iterate.h"
#include "jobs/training/session.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

typedef struct train_options {
    char *output, *task;
    bool overwrite, fresh;
    double save_every;
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
    {0},
};

/* Reduce the recipe to one of its tasks. */
static int keep_task(am_train_recipe *recipe, const char *name)
{
    int found = -1;
    const char *names[AM_RECIPE_MAX_TASKS + 1] = {0};
    for (int i = 0; i < recipe->n_tasks; i++) {
        names[i] = recipe->task[i];
        found = strcmp(recipe->task[i], name) == 0 ? i : found;
    }
    if (found < 0) {
        const char *nearest = am_nearest(names, name);
        return am_fail(AM_E_USAGE, "--task %s is not a task of the recipe%s%s%s", name,
                       nearest ? "; did you mean '" : "", nearest ? nearest : "",
                       nearest ? "'?" : "");
    }
    char *kept = recipe->task[found];
    recipe->task[found] = recipe->task[0];
    recipe->task[0] = kept;
    for (int i = 1; i < recipe->n_tasks; i++) {
        free(recipe->task[i]);
    }
    recipe->n_tasks = 1;
    return AM_OK;
}

static int epochs_all(am_iterate *it, const am_train_section *section, int64_t epochs,
                      double save_every)
{
    am_session session = {0}; /* with the optimiser's state, over all epochs */
    const int64_t seed = it->recipe->seed;
    int rc = AM_OK;
    memcpy(it->final, it->base, (size_t)(it->suite.trunk.n * am_suite_real_bytes(&it->suite)));
    am_train_options train = am_train_section_options(section, seed, "train", 1, 0, epochs);
    train.epochs = 1;
    AM_TRY(am_session_open_all(&it->suite, it->folder, it->final, &train, save_every, &session));
    while (session.epoch <= epochs) {
        const int64_t epoch = session.epoch;
        am_table_choice how = {.alpha = NAN, .epochs = epoch, .round = -1};
        train = am_train_section_options(section, seed, "train", epoch, epoch - 1, epochs);
        train.epochs = 1;
        AM_TRY(am_session_epoch_all(&session, &train));
        AM_TRY(am_iterate_validate_all(it, "train", it->final, &how));
        am_info("epoch %lld of %lld: validation accuracy %.4f, loss %.4f bits", (long long)epoch,
                (long long)epochs, how.validation, am_table_bits(how.validation_loss));
    }
    am_table_choice last = {.alpha = NAN, .epochs = epochs, .round = -1};
    AM_TRY(am_iterate_validate_all(it, "train", it->final, &last));
    AM_TRY(am_iterate_test_all(it, "trained", "trained model", it->final, last));
cleanup:
    am_session_close(&session);
    return rc;
}

static int train_all(am_iterate *it, const am_run_folder *folder, double save_every)
{
    const am_train_recipe *recipe = it->recipe;
    const am_train_section *section = recipe->n_tasks == 1 ? &recipe->finetune : &recipe->joint;
    am_table_choice how = {.alpha = NAN, .epochs = 0, .round = -1};
    am_json json = {0};
    char *text = NULL;
    int rc = AM_OK;
    AM_TRY(am_iterate_prepare_all(it, folder));
    AM_TRY(am_iterate_validate_all(it, "base", it->base, &how));
    AM_TRY(am_iterate_test_all(it, "base", "base", it->base, how));
    AM_TRY(
        epochs_all(it, section,
                   section->epochs > 0 ? section->epochs : recipe->rounds * recipe->finetune.epochs,
                   save_every));
    AM_TRY(am_iterate_save_all(it, "trunk.h5", it->final));
    text = am_table_text(&it->table);
    am_json_object(&json, NULL);
    am_json_string(&json, "job", "train");
    am_json_int(&json, "seed", recipe->seed);
    am_table_json(&it->table, &json);
    am_json_end_object(&json);
    rc = text == NULL ? AM_E_NOMEM : am_json_finish(&json);
    AM_AGREE(it->suite.comm);
    AM_TRY(am_run_folder_text_all(it->suite.comm, folder, "result.json", json.text));
    am_info("\n%s", text);
    am_result(&json);
cleanup:
    free(text);
    am_json_free(&json);
    return rc;
}

static int run_all(const am_args *args, int *exit_status)
{
    const train_options *given = args->options;
    am_train_recipe recipe = {0};
    am_run_folder folder = {.lock = -1};
    am_iterate it = {0};
    char **inputs = NULL;
    bool is_open = false;
    int rc = AM_OK;
    (void)exit_status;
    AM_TRY(
        am_train_recipe_read_all(am_world(), args->positional[0], args->set, args->n_set, &recipe));
    if (given->task != NULL) {
        AM_TRY(keep_task(&recipe, given->task)); /* the same on all ranks */
        AM_TRY(am_train_recipe_resolve(&recipe));
    }
    AM_TRY(am_iterate_open_all(am_world(), &recipe, &it));
    is_open = true;
    inputs = am_train_recipe_inputs(&recipe);
    rc = inputs == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(am_world());
    AM_TRY(am_run_folder_open_all(am_world(), given->output, "train", recipe.text,
                                  (const char *const *)inputs, given->overwrite || given->fresh,
                                  &folder));
    if (folder.is_finished) {
        am_info("%s is finished: nothing to do (--overwrite starts over)", folder.path);
        AM_TRY(am_run_folder_result_all(am_world(), &folder));
    } else {
        AM_TRY(train_all(&it, &folder, given->save_every));
    }
cleanup:
    if (is_open) {
        am_iterate_close_all(&it);
    }
    am_run_folder_close(&folder);
    am_train_recipe_inputs_free(inputs);
    am_train_recipe_free(&recipe);
    return rc;
}

const am_command am_command_train = {
    .name = "train",
    .synopsis = "RECIPE -o RUN/ [--task NAME] [--overwrite] [--fresh] [--set KEY=VALUE]...",
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
