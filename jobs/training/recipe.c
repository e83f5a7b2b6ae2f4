/* The recipe of the training jobs: see recipe.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/recipe.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "jobs/recipe/bind.h"
#include "jobs/recipe/lists.h"
#include "jobs/training/recipe/parts.h"
#include "mpi/agree.h"
#include "mpi/arena.h"

/* ---- tables ---- */

typedef struct top_keys {
    int64_t seed;
    am_dtype dtype;
    int on_divergence, choose_by;
    am_divergence divergence;
} top_keys;

enum { STOP };
static const char on_divergence[] = "stop|rollback";
static const char choose_by[] = "auto|accuracy|loss"; /* AM_CHOOSE_* */
static const char *const experiments[] = {"one_epoch", "budget", "post_hoc",  "dare",    "twenty",
                                          "gradients", "plane",  "optimizer", "methods", NULL};

static const am_param top_table[] = {
    {"seed", AM_PARAM_INT, offsetof(top_keys, seed), "0", 0, 9007199254740992.0, NULL,
     "keys every random number of the run"},
    {"dtype", AM_PARAM_DTYPE, offsetof(top_keys, dtype), "float32", 0, 0, NULL,
     "arithmetic and checkpoints: float32 or float64"},
    {"on_divergence", AM_PARAM_CHOICE, offsetof(top_keys, on_divergence), "stop", 0, 0,
     on_divergence, "stop, or take the step back and do it again with half the learning rate"},
    {"rollbacks", AM_PARAM_INT, offsetof(top_keys, divergence.rollbacks), "3", 1, 30, NULL,
     "rollbacks of a step, or of a train, at most; then stop"},
    {"loss_limit", AM_PARAM_REAL, offsetof(top_keys, divergence.loss_limit), "0", 0, 1e300, NULL,
     "a mean training loss above this is divergence; 0: only NaN and infinity"},
    {"choose_by", AM_PARAM_CHOICE, offsetof(top_keys, choose_by), "auto", 0, 0, choose_by,
     "what alpha, round and epochs are chosen by, on validation data; auto: loss for text"},
    {0},
};
static const char *const top_sections[] = {
    "model", "data",      "base",  "heads",  "finetune",   "merge", "one_shot", "iterate", "joint",
    "stats", "gradients", "plane", "theory", "experiment", "twin",  "regmean",  NULL};

typedef struct data_keys {
    char *folder;
} data_keys;

static const am_param data_table[] = {
    {"folder", AM_PARAM_STRING, offsetof(data_keys, folder), NULL, 0, 0, NULL,
     "folder of the prepared data sets, FOLDER/TASK.h5"},
    {0},
};
static const char *const data_lists[] = {"tasks", "limit", NULL};

typedef struct limit_keys {
    int64_t split[AM_SPLITS];
} limit_keys;

static const am_param limit_table[] = {
    {"train", AM_PARAM_INT, offsetof(limit_keys, split[AM_TRAIN]), "0", 0, 1e12, NULL,
     "training samples a task at most, 0: all"},
    {"validation", AM_PARAM_INT, offsetof(limit_keys, split[AM_VALIDATION]), "0", 0, 1e12, NULL,
     "validation samples a task at most, 0: all"},
    {"test", AM_PARAM_INT, offsetof(limit_keys, split[AM_TEST]), "0", 0, 1e12, NULL,
     "test samples a task at most, 0: all"},
    {0},
};

/* ---- sections ---- */

static int read_tasks(const am_node *list, am_train_recipe *out)
{
    int rc = AM_OK;
    if (list == NULL || (list->kind == AM_NODE_LIST && list->n == 0)) {
        return am_fail(AM_E_RECIPE, "the recipe names no task: list data sets under data: tasks:");
    }
    AM_TRY(am_recipe_list(list, "data.tasks", AM_RECIPE_MAX_TASKS));
    out->task = am_new(list->n, sizeof *out->task, "tasks");
    AM_TRY(out->task == NULL ? AM_E_NOMEM : AM_OK);
    for (int64_t i = 0; i < list->n; i++) {
        const char *name = NULL;
        AM_TRY(am_node_text(list->item[i], "data.tasks", &name));
        for (int k = 0; k < out->n_tasks; k++) {
            if (strcmp(out->task[k], name) == 0) {
                return am_node_fail(list->item[i], "task %s is listed twice", name);
            }
        }
        out->task[out->n_tasks] = am_text("%s", name);
        AM_TRY(out->task[out->n_tasks] == NULL ? AM_E_NOMEM : AM_OK);
        out->n_tasks++;
    }
cleanup:
    return rc;
}

static int read_data(const am_node *root, am_train_recipe *out)
{
    const am_node *map = am_node_find(root, "data");
    data_keys keys = {0};
    limit_keys limit = {0};
    int rc = am_recipe_bind(map, data_table, data_lists, "data", &keys);
    AM_KEEP(am_recipe_bind(am_node_find(map, "limit"), limit_table, NULL, "data.limit", &limit));
    AM_KEEP(read_tasks(am_node_find(map, "tasks"), out));
    out->folder = keys.folder;
    memcpy(out->limit, limit.split, sizeof limit.split);
    return rc;
}

/* ---- the resolved recipe ---- */

static void json_head(const am_train_recipe *r, am_json *json)
{
    static const char *const splits[] = {"train", "validation", "test"};
    static const char *const choices[] = {"auto", "accuracy", "loss"};
    if (r->experiment != NULL) {
        am_json_string(json, "experiment", r->experiment);
    }
    am_json_int(json, "seed", r->seed);
    am_json_string(json, "dtype", r->dtype == AM_DTYPE_F64 ? "float64" : "float32");
    am_json_string(json, "on_divergence", r->divergence.rollbacks > 0 ? "rollback" : "stop");
    if (r->divergence.rollbacks > 0) {
        am_json_int(json, "rollbacks", r->divergence.rollbacks);
    }
    am_json_real(json, "loss_limit", r->divergence.loss_limit);
    am_json_string(json, "choose_by", choices[r->choose_by]);
    am_model_print(&r->model, json);
    am_json_object(json, "data");
    am_json_string(json, "folder", r->folder);
    am_json_array(json, "tasks");
    for (int i = 0; i < r->n_tasks; i++) {
        am_json_string(json, NULL, r->task[i]);
    }
    am_json_end_array(json);
    am_json_object(json, "limit");
    for (int i = 0; i < AM_SPLITS; i++) {
        am_json_int(json, splits[i], r->limit[i]);
    }
    am_json_end_object(json);
    am_json_end_object(json);
}

/* All values with their defaults, as JSON (which is YAML): reads back to the same recipe. */
int am_train_recipe_resolve(am_train_recipe *r)
{
    am_json json = {0};
    am_json_object(&json, NULL);
    json_head(r, &json);
    am_train_sections_print(r, &json);
    am_train_comparison_print(r, &json);
    am_train_joint_print(r, &json);
    am_train_measures_print(r, &json);
    am_theory_section_print(&r->theory, &json);
    am_train_twin_print(r, &json);
    am_train_regmean_print(r, &json);
    am_json_end_object(&json);
    int rc = am_json_finish(&json);
    if (rc == AM_OK) {
        free(r->text);
        r->text = json.text;
        json.text = NULL;
    }
    am_json_free(&json);
    return rc;
}

/* ---- public ---- */

bool am_train_recipe_by_loss(const am_train_recipe *recipe, bool is_text)
{
    return recipe->choose_by == AM_CHOOSE_LOSS || (recipe->choose_by == AM_CHOOSE_AUTO && is_text);
}

/* What a report makes of the run; nothing else depends on it. */
static int read_experiment(const am_node *node, am_train_recipe *out)
{
    const char *name = NULL;
    const int rc = node == NULL ? AM_OK : am_node_text(node, "experiment", &name);
    for (int i = 0; rc == AM_OK && name != NULL && experiments[i] != NULL; i++) {
        if (strcmp(experiments[i], name) == 0) {
            out->experiment = experiments[i];
        }
    }
    if (rc == AM_OK && name != NULL && out->experiment == NULL) {
        const char *nearest = am_nearest(experiments, name);
        return am_node_fail(node, "unknown experiment '%s'%s%s%s: see jobs/training/README.md",
                            name, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                            nearest ? "'?" : "");
    }
    return rc;
}

int64_t am_train_recipe_rounds(const am_train_recipe *recipe, int64_t round_epochs)
{
    return recipe->budget > 0 ? recipe->budget / round_epochs : recipe->rounds;
}

int64_t am_train_recipe_joint_epochs(const am_train_recipe *recipe)
{
    const int64_t most = recipe->iterate.epochs[recipe->iterate.n_epochs - 1]; /* ascending */
    return recipe->joint.epochs > 0 ? recipe->joint.epochs
                                    : am_train_recipe_rounds(recipe, most) * most;
}

static int read_root(const am_node *root, am_train_recipe *out)
{
    top_keys top = {0};
    int rc = am_node_map(root, "the recipe");
    AM_KEEP(am_recipe_bind(root, top_table, top_sections, "", &top));
    out->seed = top.seed;
    out->dtype = top.dtype;
    out->divergence = top.divergence;
    out->choose_by = top.choose_by;
    if (top.on_divergence == STOP) {
        out->divergence.rollbacks = 0;
    }
    AM_KEEP(read_experiment(am_node_find(root, "experiment"), out));
    AM_KEEP(am_model_read(am_node_find(root, "model"), &out->model));
    AM_KEEP(read_data(root, out));
    AM_KEEP(am_train_sections_read(root, out));
    AM_KEEP(am_train_twin_read(root, out));
    AM_KEEP(am_train_comparison_read(root, out));
    if (rc == AM_OK) {
        am_train_twin_lambda(root, out);
    }
    AM_KEEP(am_train_measures_read(root, out));
    AM_KEEP(am_theory_section_read(am_node_find(root, "theory"), out->n_tasks, &out->theory));
    AM_KEEP(am_train_regmean_read(root, out));
    AM_KEEP(am_train_recipe_resolve(out));
    return rc;
}

/* Paths of a recipe are meant from the working folder, else from the recipe's. */
static int resolve_path_all(MPI_Comm comm, const char *recipe, char **path)
{
    char *found = NULL;
    int rc = AM_OK;
    if (*path != NULL) {
        rc = am_recipe_path_all(comm, *path, recipe, &found);
        if (rc == AM_OK) {
            free(*path);
            *path = found;
        }
    }
    return rc;
}

int am_train_recipe_read_all(MPI_Comm comm, const char *path, char *const *set, int n_set,
                             am_train_recipe *out)
{
    am_yaml *yaml = NULL;
    int rc = AM_OK;
    *out = (am_train_recipe){0};
    AM_TRY(am_yaml_read_all(comm, path, &yaml));
    rc = am_yaml_override_each(yaml, n_set, set);
    AM_KEEP(read_root(am_yaml_root(yaml), out));
    AM_AGREE(comm);
    AM_TRY(resolve_path_all(comm, path, &out->folder));
    AM_TRY(resolve_path_all(comm, path, &out->base_checkpoint));
    AM_TRY(resolve_path_all(comm, path, &out->heads_checkpoint));
cleanup:
    am_yaml_free(&yaml);
    return rc;
}

void am_train_recipe_free(am_train_recipe *recipe)
{
    for (int i = 0; i < recipe->n_tasks; i++) {
        free(recipe->task[i]);
    }
    free(recipe->task);
    free(recipe->finetune.optim.no_decay);
    free(recipe->base.optim.no_decay);
    free(recipe->heads.optim.no_decay);
    free(recipe->joint.optim.no_decay);
    am_model_free(&recipe->model);
    free(recipe->text);
    free(recipe->folder);
    free(recipe->base_checkpoint);
    free(recipe->base_task);
    free(recipe->heads_checkpoint);
    free(recipe->twin.models);
    free(recipe->regmean.models);
    free(recipe->room);
    *recipe = (am_train_recipe){0};
}

am_train_options am_train_section_options(const am_train_section *section, int64_t seed,
                                          const char *purpose, int64_t round, int64_t first_epoch,
                                          int64_t run_epochs)
{
    am_rate rate = section->rate;
    rate.epochs = rate.epochs > 0 ? rate.epochs : run_epochs;
    return (am_train_options){.optim = section->optim,
                              .batch = section->batch,
                              .micro_batches = section->micro_batches,
                              .epochs = section->epochs,
                              .rate = rate,
                              .first_epoch = first_epoch,
                              .train_trunk = true,
                              .sum_tasks = section->sum_tasks,
                              .seed = (uint64_t)seed,
                              .purpose = purpose,
                              .round = round,
                              .augment = section->augment};
}
