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
#include "jobs/training/twin/job.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

typedef struct eval_options {
    char *model, *heads, *twins;
    int split, route;
    int64_t memory;
} eval_options;

enum { ROUTE_OF_RECIPE }; /* else 1 + am_twin_route */

static const am_param options[] = {
    {"model", AM_PARAM_STRING, offsetof(eval_options, model), "", 0, 0, NULL,
     "checkpoint of a trunk; further ones may follow"},
    {"heads", AM_PARAM_STRING, offsetof(eval_options, heads), "", 0, 0, NULL,
     "checkpoint of the heads (RUN/heads.h5); else heads: checkpoint: of the recipe"},
    {"twins", AM_PARAM_STRING, offsetof(eval_options, twins), "", 0, 0, NULL,
     "run folder of `twin`, evaluated with its own heads: the model of each sample is routed"},
    {"route", AM_PARAM_CHOICE, offsetof(eval_options, route), "recipe", 0, 0, "recipe|soft|top1",
     "of --twins: by the router's probabilities, or the likeliest task; recipe: twin.route"},
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

/* A row for the twins in a folder. */
static int eval_twins_all(am_suite *suite, const am_train_recipe *recipe, const eval_options *given,
                          am_table *table)
{
    am_scores scores = {0};
    am_twins twins = {0};
    am_table_choice how = {.method = "twin_merging",
                           .alpha = NAN,
                           .epochs = -1,
                           .round = -1,
                           .validation = NAN,
                           .validation_loss = NAN};
    void *shared = am_suite_trunk_new(suite);
    int rc = shared == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(suite->comm);
    AM_TRY(am_twin_read_all(suite, recipe, given->twins, shared, &twins));
    AM_TRY(am_twins_eval_all(&twins, recipe->twin.route, (am_split)given->split, &scores, NULL));
    AM_TRY(am_table_add(table, given->twins, given->twins, how, &scores));
cleanup:
    am_twins_free(&twins);
    free(shared);
    am_scores_free(&scores);
    return rc;
}

/* What there is to evaluate, and with which heads. */
static int check(const eval_options *given, const am_train_recipe *recipe, int n_models,
                 const char *heads)
{
    if (n_models > 0 && given->twins != NULL) {
        return am_fail(AM_E_USAGE, "--twins and --model are evaluated with heads of their own: ask "
                                   "for one of them at a time");
    }
    if (given->twins != NULL && given->heads != NULL) {
        return am_fail(AM_E_USAGE, "--twins %s has its own heads: leave out --heads", given->twins);
    }
    if (given->twins == NULL && given->route != ROUTE_OF_RECIPE) {
        return am_fail(AM_E_USAGE, "--route goes with --twins");
    }
    if (given->twins == NULL && heads == NULL) {
        return am_fail(AM_E_USAGE, "no heads to evaluate with: give --heads RUN/heads.h5, or "
                                   "heads: checkpoint: in the recipe");
    }
    if (recipe->model.linearised) {
        return am_fail(AM_E_RECIPE, "eval does not know the base at which the model is linearised: "
                                    "read the scores of train or iterate");
    }
    if (given->twins == NULL && n_models == 0) {
        return am_fail(AM_E_USAGE, "no model to evaluate: give --model CKPT");
    }
    return AM_OK;
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
    const int n_models = args->n_positional - 1 + (given->model != NULL);
    rc = check(given, &recipe, n_models, heads);
    AM_AGREE(am_world());
    if (given->route != ROUTE_OF_RECIPE) {
        recipe.twin.route = (am_twin_route)(given->route - 1);
    }
    AM_TRY(am_train_fit_all(am_world(), &recipe,
                            given->twins != NULL ? AM_JOB_EVAL_TWIN : AM_JOB_EVAL, am_world_size(),
                            given->memory, NULL, NULL));
    AM_TRY(am_suite_open_all(am_world(), recipe.folder, (const char *const *)recipe.task,
                             recipe.n_tasks, recipe.limit, recipe.room, &recipe.model.net,
                             recipe.dtype, &suite));
    table.by_loss = am_train_recipe_by_loss(&recipe, am_suite_is_text(&suite));
    if (given->twins != NULL) {
        AM_TRY(eval_twins_all(&suite, &recipe, given, &table));
    } else {
        AM_TRY(am_suite_load_heads_all(&suite, heads));
    }
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
    .synopsis =
        "RECIPE --model CKPT... [--heads HEADS] [--split test] [--memory SIZE]; RECIPE --twins "
        "RUN/ [--route soft]",
    .summary = "accuracy and loss of checkpoints on every task of a recipe",
    .help =
        "A model is a trunk of the recipe's shape, trained or merged, in any format; heads are not "
        "merged and come from the run that made them. With --twins the folder of a `twin` run is "
        "evaluated, by the recipe of that run, each sample with the model that the router gives "
        "it; of validation data the second half, from which the router has not learnt. Prints a "
        "table and one JSON line.",
    .min_positional = 1,
    .max_positional = -1,
    .options = options,
    .options_bytes = sizeof(eval_options),
    .takes_set = true,
    .run_all = run_all,
};
