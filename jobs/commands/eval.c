/* allmerge eval RECIPE --model CKPT...: accuracy and loss of checkpoints on every task.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/command.h"
#include "jobs/training/fit.h"
#include "jobs/training/suite/suite.h"
#include "jobs/training/table.h"
#include "jobs/training/recipe.h"
#include "jobs/training/suite/weights.h"
#include "jobs/training/suite/scores.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

typedef struct eval_options {
    char *model, *heads;
    int split;
    int64_t memory;
} eval_options;

static const am_param options[] = {
    {"model", AM_PARAM_STRING, offsetof(eval_options, model), "", 0, 0, NULL,
     "checkpoint of a trunk; further ones may follow"},
    {"heads", AM_PARAM_STRING, offsetof(eval_options, heads), "", 0, 0, NULL,
     "checkpoint of the heads (RUN/heads.h5); else heads: checkpoint: of the recipe"},
    {"split", AM_PARAM_CHOICE, offsetof(eval_options, split), "test", 0, 0, "train|validation|test",
     "samples to evaluate on"},
    {"memory", AM_PARAM_BYTES, offsetof(eval_options, memory), "0", 0, INT64_MAX, NULL,
     "what a rank may take: data sets that do not fit are read in pages; 0: any"},
    {0},
};

static int eval_one_all(const am_suite *suite, const char *path, am_split split, am_table *table)
{
    am_scores scores = {0};
    am_table_choice how = {
        .alpha = NAN, .epochs = -1, .round = -1, .validation = NAN, .validation_loss = NAN};
    void *trunk = am_suite_trunk_new(suite);
    int rc = trunk == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(suite->comm);
    AM_TRY(am_suite_load_trunk_all(suite, path, trunk));
    AM_TRY(am_suite_eval_all(suite, trunk, split, &scores));
    AM_TRY(am_table_add(table, path, path, how, &scores));
cleanup:
    free(trunk);
    am_scores_free(&scores);
    return rc;
}

static int report_all(const am_table *table, am_split split)
{
    static const char *const splits[] = {"train", "validation", "test"};
    am_json json = {0};
    char *text = am_table_text(table);
    am_json_object(&json, NULL);
    am_json_string(&json, "job", "eval");
    am_json_string(&json, "split", splits[split]);
    am_table_json(table, &json);
    am_json_end_object(&json);
    int rc = text == NULL ? AM_E_NOMEM : am_json_finish(&json);
    if (rc == AM_OK) {
        am_info("%s", text);
        am_result(&json);
    }
    free(text);
    am_json_free(&json);
    return am_agree_all(table->suite->comm, rc);
}

static int run_all(const am_args *args, int *exit_status)
{
    const eval_options *given = args->options;
    am_train_recipe recipe = {0};
    am_suite suite = {.comm = MPI_COMM_NULL, .group = MPI_COMM_NULL};
    am_table table = {.suite = &suite};
    am_split split = (am_split)given->split;
    int rc = AM_OK;
    (void)exit_status;
    am_memory_keep_no_holes();
    AM_TRY(
        am_train_recipe_read_all(am_world(), args->positional[0], args->set, args->n_set, &recipe));
    const char *heads = given->heads != NULL ? given->heads : recipe.heads_checkpoint;
    if (heads == NULL) {
        rc = am_fail(AM_E_USAGE, "no heads to evaluate with: give --heads RUN/heads.h5, or heads: "
                                 "checkpoint: in the recipe");
    } else if (recipe.model.linearised) {
        rc = am_fail(AM_E_RECIPE, "eval does not know the base at which the model is linearised: "
                                  "read the scores of train or iterate");
    } else if (given->model == NULL && args->n_positional == 1) {
        rc = am_fail(AM_E_USAGE, "no model to evaluate: give --model CKPT");
    }
    AM_AGREE(am_world());
    AM_TRY(am_train_fit_all(am_world(), &recipe, AM_JOB_EVAL, am_world_size(), given->memory, NULL,
                            NULL));
    AM_TRY(am_suite_open_all(am_world(), recipe.folder, (const char *const *)recipe.task,
                             recipe.n_tasks, recipe.limit, recipe.room, &recipe.model.net,
                             recipe.dtype, &suite));
    table.by_loss = am_train_recipe_by_loss(&recipe, am_suite_is_text(&suite));
    AM_TRY(am_suite_load_heads_all(&suite, heads));
    if (given->model != NULL) {
        AM_TRY(eval_one_all(&suite, given->model, split, &table));
    }
    for (int i = 1; i < args->n_positional; i++) {
        AM_TRY(eval_one_all(&suite, args->positional[i], split, &table));
    }
    AM_TRY(report_all(&table, split));
cleanup:
    am_table_free(&table);
    am_suite_close_all(&suite);
    am_train_recipe_free(&recipe);
    return rc;
}

const am_command am_command_eval = {
    .name = "eval",
    .synopsis = "RECIPE --model CKPT... [--heads HEADS] [--split test] [--memory SIZE]",
    .summary = "accuracy and loss of checkpoints on every task of a recipe",
    .help =
        "A model is a trunk of the recipe's shape, trained or merged, in any format; heads are not "
        "merged and come from the run that made them. Prints a table and one JSON line.",
    .min_positional = 1,
    .max_positional = -1,
    .options = options,
    .options_bytes = sizeof(eval_options),
    .takes_set = true,
    .run_all = run_all,
};
