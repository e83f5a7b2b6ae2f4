/* The recipe of the training jobs: see recipe.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/recipe.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/recipe/bind.h"
#include "jobs/recipe/lists.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "solver/training/optim.h"

/* ---- tables ---- */

enum { SECTION_KEYS = 40 };

static const am_param section_keys[] = {
    {"epochs", AM_PARAM_INT, offsetof(am_train_section, epochs), "1", 0, 1e6, NULL,
     "passes over the training data"},
    {"batch", AM_PARAM_INT, offsetof(am_train_section, batch), "64", 0, 1e9, NULL,
     "samples a step, 0: all of them (full batch)"},
    {"micro_batches", AM_PARAM_INT, offsetof(am_train_section, micro_batches), "2", 1, 65536, NULL,
     "parts of a batch that ranks can share; changes the rounding, so part of the recipe"},
    {"sum_tasks", AM_PARAM_BOOL, offsetof(am_train_section, sum_tasks), "no", 0, 0, NULL,
     "joint: each step sums one batch of every task; else batches of all tasks in shuffled order"},
    {0},
};

static int append(am_param *table, int n, const am_param *more, size_t offset)
{
    for (int i = 0; more[i].key != NULL; i++) {
        AM_ASSERT(n < SECTION_KEYS - 1);
        table[n] = more[i];
        table[n++].offset += offset;
    }
    return n;
}

/* The keys of a section: those of the optimisers, of the learning rate, of augmentation, and ours.
 */
static const am_param *section_table(void)
{
    static am_param table[SECTION_KEYS];
    if (table[0].key == NULL) {
        int n = append(table, 0, am_optim_params(), offsetof(am_train_section, optim));
        n = append(table, n, am_rate_params(), offsetof(am_train_section, rate));
        n = append(table, n, am_augment_params(), offsetof(am_train_section, augment));
        (void)append(table, n, section_keys, 0);
    }
    return table;
}

typedef struct top_keys {
    int64_t seed;
    am_dtype dtype;
    int on_divergence, choose_by;
    am_divergence divergence;
} top_keys;

enum { STOP };
static const char on_divergence[] = "stop|rollback";
static const char choose_by[] = "auto|accuracy|loss"; /* AM_CHOOSE_* */

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
static const char *const top_sections[] = {"model",    "data",   "base",     "heads",
                                           "finetune", "merge",  "one_shot", "iterate",
                                           "joint",    "theory", NULL};

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

/* What a section has beside training keys. */
typedef struct extra_keys {
    char *checkpoint, *pretrain;
    bool run, random;
} extra_keys;

static const am_param base_extra[] = {
    {"checkpoint", AM_PARAM_STRING, offsetof(extra_keys, checkpoint), "", 0, 0, NULL,
     "read the base from this checkpoint"},
    {"pretrain", AM_PARAM_STRING, offsetof(extra_keys, pretrain), "", 0, 0, NULL,
     "else train it on this data set; else random"},
    {0},
};
static const am_param heads_extra[] = {
    {"checkpoint", AM_PARAM_STRING, offsetof(extra_keys, checkpoint), "", 0, 0, NULL,
     "read the heads from this checkpoint; else probe the frozen base"},
    {"random", AM_PARAM_BOOL, offsetof(extra_keys, random), "no", 0, 0, NULL,
     "leave the heads at random values, by the seed, instead of probing"},
    {0},
};
static const am_param joint_extra[] = {
    {"run", AM_PARAM_BOOL, offsetof(extra_keys, run), "yes", 0, 0, NULL,
     "train on all tasks together, for comparison"},
    {0},
};

typedef struct iterate_keys {
    int64_t rounds, patience, warmup, keep;
} iterate_keys;

static const am_param iterate_table[] = {
    {"rounds", AM_PARAM_INT, offsetof(iterate_keys, rounds), "10", 1, 1e6, NULL,
     "rounds of finetuning and merging"},
    {"warmup", AM_PARAM_INT, offsetof(iterate_keys, warmup), "0", 0, 1e6, NULL,
     "rounds over which alpha grows linearly to its value"},
    {"patience", AM_PARAM_INT, offsetof(iterate_keys, patience), "0", 0, 1e6, NULL,
     "stop when validation has not improved for so many rounds, 0: never"},
    {"keep", AM_PARAM_INT, offsetof(iterate_keys, keep), "3", 0, 1e6, NULL,
     "newest models of rounds that stay on disk, beside the best of each alpha; 0: all"},
    {0},
};
static const char *const iterate_lists[] = {"alphas", NULL};

static const char *const merge_keys[] = {"merge_method", "parameters", NULL};
static const char *const one_shot_keys[] = {"epochs", "alphas", NULL};

/* ---- sections ---- */

static char *copy_text(const char *text)
{
    char *copy = am_new((int64_t)strlen(text) + 1, 1, "the recipe");
    if (copy != NULL) {
        memcpy(copy, text, strlen(text));
    }
    return copy;
}

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
        out->task[out->n_tasks] = copy_text(name);
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

/* One value of a table's object to another; texts are copied. */
static int copy_param(const am_param *param, const void *from, void *to)
{
    const char *source = (const char *)from + param->offset;
    char *target = (char *)to + param->offset;
    size_t bytes = sizeof(int64_t);
    if (param->type == AM_PARAM_STRING) {
        char *const *text = (char *const *)(const void *)source;
        char *copy = *text != NULL ? copy_text(*text) : NULL;
        free(*(char **)(void *)target);
        *(char **)(void *)target = copy;
        return *text != NULL && copy == NULL ? AM_E_NOMEM : AM_OK;
    }
    if (param->type == AM_PARAM_CHOICE || param->type == AM_PARAM_DTYPE) {
        bytes = sizeof(int);
    } else if (param->type == AM_PARAM_BOOL) {
        bytes = sizeof(bool);
    }
    memcpy(target, source, bytes);
    return AM_OK;
}

/* A training section with extra keys; keys given in `fallback` (another section) are its defaults.
 */
static int read_section(const am_node *root, const char *name, const am_param *extra_table,
                        const am_train_section *fallback, am_train_section *out, extra_keys *extra)
{
    const am_node *map = am_node_find(root, name);
    const am_param *table = section_table();
    const char *names[SECTION_KEYS + 1], *extra_names[4] = {0};
    int n = 0;
    for (; table[n].key != NULL; n++) {
        names[n] = table[n].key;
    }
    names[n] = NULL;
    for (int i = 0; extra_table != NULL && extra_table[i].key != NULL; i++) {
        AM_ASSERT(i < 3);
        extra_names[i] = extra_table[i].key;
    }
    int rc = am_recipe_bind(map, table, extra_names, name, out);
    if (extra_table != NULL) {
        AM_KEEP(am_recipe_bind(map, extra_table, names, name, extra));
    }
    for (int i = 0; rc == AM_OK && fallback != NULL && table[i].key != NULL; i++) {
        if (am_node_find(map, table[i].key) == NULL && strcmp(table[i].key, "epochs") != 0 &&
            strcmp(table[i].key, "sum_tasks") != 0) {
            AM_KEEP(copy_param(&table[i], fallback, out));
        }
    }
    return rc;
}

static int read_sections(const am_node *root, am_train_recipe *out)
{
    extra_keys base = {0}, heads = {0}, joint = {0};
    int rc = read_section(root, "finetune", NULL, NULL, &out->finetune, NULL);
    AM_KEEP(read_section(root, "base", base_extra, &out->finetune, &out->base, &base));
    AM_KEEP(read_section(root, "heads", heads_extra, &out->finetune, &out->heads, &heads));
    AM_KEEP(read_section(root, "joint", joint_extra, &out->finetune, &out->joint, &joint));
    if (am_node_find(am_node_find(root, "joint"), "epochs") == NULL) {
        out->joint.epochs = 0; /* the budget of the iterative run */
    }
    out->base_checkpoint = base.checkpoint;
    out->base_task = base.pretrain;
    out->heads_checkpoint = heads.checkpoint;
    out->heads_random = heads.random;
    out->run_joint = joint.run;
    if (rc == AM_OK && out->base_checkpoint != NULL && out->base_task != NULL) {
        rc = am_node_fail(am_node_find(root, "base"),
                          "base has both a checkpoint and a data set to pretrain on: keep one");
    }
    if (rc == AM_OK && out->heads_checkpoint != NULL && out->heads_random) {
        rc = am_node_fail(am_node_find(root, "heads"),
                          "heads has both a checkpoint and random: yes: keep one");
    }
    if (rc == AM_OK && out->finetune.epochs < 1) {
        rc = am_node_fail(am_node_find(root, "finetune"), "finetune.epochs must be at least 1");
    }
    return rc;
}

/* ---- the merge ---- */

static int set_method_param(const am_method *method, const am_node *key, const am_node *value,
                            double *param)
{
    const char *names[AM_METHOD_MAX_PARAMS + 1] = {0};
    for (int i = 0; method->params[i].key != NULL; i++) {
        const am_method_param *p = &method->params[i];
        names[i] = p->key;
        if (strcmp(p->key, key->text) != 0) {
            continue;
        }
        bool flag = false;
        int rc = p->is_bool ? am_node_bool(value, p->key, &flag)
                            : am_node_real(value, p->key, &param[i]);
        if (p->is_bool) {
            param[i] = flag ? 1.0 : 0.0;
        }
        if (rc == AM_OK && (p->low != 0.0 || p->high != 0.0) &&
            !(param[i] >= p->low && param[i] <= p->high)) {
            rc = am_node_fail(value, "%s: %g is outside %g to %g", p->key, param[i], p->low,
                              p->high);
        }
        return rc;
    }
    const char *nearest = am_nearest(names, key->text);
    return am_node_fail(key, "method %s has no parameter '%s'%s%s%s", method->name, key->text,
                        nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
}

static int find_method(const am_node *map, am_train_recipe *out)
{
    const am_node *node = am_node_find(map, "merge_method");
    const char *name = "task_arithmetic", *names[AM_METHOD_MAX_PARAMS * 8] = {0};
    int rc = node == NULL ? AM_OK : am_node_text(node, "merge.merge_method", &name);
    if (rc != AM_OK) {
        return rc;
    }
    out->method = am_method_find(name);
    if (out->method != NULL && out->method->needs_aux) {
        return am_node_fail(
            node, "%s needs a second checkpoint for each model; use `allmerge merge`", name);
    }
    if (out->method != NULL && out->method->is_dense != NULL) {
        return am_node_fail(
            node,
            "%s works on whole matrices, and here a rank holds a slice of each; use "
            "`allmerge merge` on the models of the tasks",
            name);
    }
    if (out->method != NULL) {
        return AM_OK;
    }
    for (int i = 0; am_method_table[i] != NULL && i < AM_METHOD_MAX_PARAMS * 8 - 1; i++) {
        names[i] = am_method_table[i]->name;
    }
    const char *nearest = am_nearest(names, name);
    return am_node_fail(node, "unknown merge method '%s'%s%s%s: see allmerge methods", name,
                        nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
}

static int read_merge(const am_node *root, am_train_recipe *out)
{
    const am_node *map = am_node_find(root, "merge"), *given = am_node_find(map, "parameters");
    int rc = map == NULL ? AM_OK : am_node_map(map, "merge");
    if (map != NULL) {
        AM_KEEP(am_recipe_check_keys(map, NULL, merge_keys, "merge"));
    }
    AM_KEEP(find_method(map, out));
    if (rc != AM_OK) {
        return rc;
    }
    out->lambda = -1;
    for (int i = 0; out->method->params[i].key != NULL; i++) {
        const am_method_param *p = &out->method->params[i];
        out->param[i] = p->required ? 1.0 : p->fallback; /* weight: 1 for every task */
        if (strcmp(p->key, "lambda") == 0) {
            out->lambda = i;
        }
    }
    AM_KEEP(given == NULL ? AM_OK : am_node_map(given, "merge.parameters"));
    for (int64_t i = 0; rc == AM_OK && given != NULL && i < given->n; i++) {
        rc = set_method_param(out->method, given->key[i], given->item[i], out->param);
    }
    return rc;
}

/* Alphas only make sense for a method with a lambda; without one there is a single merge. */
static int read_alphas(const am_node *map, const char *what, const am_train_recipe *recipe,
                       double *alpha, int *n)
{
    const am_node *node = am_node_find(map, "alphas");
    if (recipe->lambda < 0) {
        alpha[0] = NAN;
        *n = 1;
        return node == NULL ? AM_OK
                            : am_node_fail(node, "%s: method %s has no lambda to search", what,
                                           recipe->method->name);
    }
    if (node == NULL) {
        alpha[0] = recipe->param[recipe->lambda];
        *n = 1;
        return AM_OK;
    }
    return am_recipe_reals(node, what, -10, 10, AM_RECIPE_MAX_LIST, alpha, n);
}

static int read_comparison(const am_node *root, am_train_recipe *out)
{
    const am_node *one_shot = am_node_find(root, "one_shot");
    const am_node *iterate = am_node_find(root, "iterate");
    const am_node *epochs = am_node_find(one_shot, "epochs");
    iterate_keys keys = {0};
    int rc = one_shot == NULL ? AM_OK : am_node_map(one_shot, "one_shot");
    if (one_shot != NULL) {
        AM_KEEP(am_recipe_check_keys(one_shot, NULL, one_shot_keys, "one_shot"));
    }
    AM_KEEP(am_recipe_bind(iterate, iterate_table, iterate_lists, "iterate", &keys));
    if (rc == AM_OK && epochs != NULL) {
        rc = am_recipe_ascending(epochs, "one_shot.epochs", 1, 1000000, AM_RECIPE_MAX_LIST,
                                 out->one_shot_epochs, &out->n_epochs);
    } else {
        out->one_shot_epochs[0] = 1;
        out->n_epochs = 1;
    }
    AM_KEEP(read_alphas(one_shot, "one_shot.alphas", out, out->alpha, &out->n_alphas));
    AM_KEEP(
        read_alphas(iterate, "iterate.alphas", out, out->iterate_alpha, &out->n_iterate_alphas));
    out->rounds = keys.rounds;
    out->patience = keys.patience;
    out->warmup = keys.warmup;
    out->keep = keys.keep;
    return rc;
}

/* ---- the resolved recipe ---- */

static void json_section(am_json *json, const char *name, const am_train_section *section,
                         const char *checkpoint, const char *pretrain)
{
    am_json_object(json, name); /* left open: the caller adds and ends */
    if (checkpoint != NULL) {
        am_json_string(json, "checkpoint", checkpoint);
    }
    if (pretrain != NULL) {
        am_json_string(json, "pretrain", pretrain);
    }
    am_param_print_json(section_table(), section, json);
}

static void json_reals(am_json *json, const char *key, const double *values, int n)
{
    am_json_array(json, key);
    for (int i = 0; i < n; i++) {
        am_json_real(json, NULL, values[i]);
    }
    am_json_end_array(json);
}

static void json_head(const am_train_recipe *r, am_json *json)
{
    static const char *const splits[] = {"train", "validation", "test"};
    static const char *const choices[] = {"auto", "accuracy", "loss"};
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

static void json_merge(const am_train_recipe *r, am_json *json)
{
    am_json_object(json, "merge");
    am_json_string(json, "merge_method", r->method->name);
    am_json_object(json, "parameters");
    for (int i = 0; r->method->params[i].key != NULL; i++) {
        if (r->method->params[i].is_bool) {
            am_json_bool(json, r->method->params[i].key, r->param[i] != 0.0);
        } else {
            am_json_real(json, r->method->params[i].key, r->param[i]);
        }
    }
    am_json_end_object(json);
    am_json_end_object(json);
    am_json_object(json, "one_shot");
    am_json_array(json, "epochs");
    for (int i = 0; i < r->n_epochs; i++) {
        am_json_int(json, NULL, r->one_shot_epochs[i]);
    }
    am_json_end_array(json);
    if (r->lambda >= 0) {
        json_reals(json, "alphas", r->alpha, r->n_alphas);
    }
    am_json_end_object(json);
    am_json_object(json, "iterate");
    am_json_int(json, "rounds", r->rounds);
    am_json_int(json, "warmup", r->warmup);
    am_json_int(json, "patience", r->patience);
    am_json_int(json, "keep", r->keep);
    if (r->lambda >= 0) {
        json_reals(json, "alphas", r->iterate_alpha, r->n_iterate_alphas);
    }
    am_json_end_object(json);
}

/* All values with their defaults, as JSON (which is YAML): reads back to the same recipe. */
int am_train_recipe_resolve(am_train_recipe *r)
{
    am_json json = {0};
    am_json_object(&json, NULL);
    json_head(r, &json);
    json_section(&json, "base", &r->base, r->base_checkpoint, r->base_task);
    am_json_end_object(&json);
    json_section(&json, "heads", &r->heads, r->heads_checkpoint, NULL);
    if (r->heads_random) {
        am_json_bool(&json, "random", true);
    }
    am_json_end_object(&json);
    json_section(&json, "finetune", &r->finetune, NULL, NULL);
    am_json_end_object(&json);
    json_merge(r, &json);
    json_section(&json, "joint", &r->joint, NULL, NULL);
    am_json_bool(&json, "run", r->run_joint);
    am_json_end_object(&json);
    am_theory_section_print(&r->theory, &json);
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
    AM_KEEP(am_model_read(am_node_find(root, "model"), &out->model));
    AM_KEEP(read_data(root, out));
    AM_KEEP(read_sections(root, out));
    AM_KEEP(read_merge(root, out));
    AM_KEEP(read_comparison(root, out));
    AM_KEEP(am_theory_section_read(am_node_find(root, "theory"), out->n_tasks, &out->theory));
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
    *out = (am_train_recipe){.lambda = -1};
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
