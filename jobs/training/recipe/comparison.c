/* Sections merge, one_shot and iterate of a training recipe. SPDX-License-Identifier: BSD-3-Clause
 */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "jobs/recipe/bind.h"
#include "jobs/recipe/lists.h"
#include "jobs/training/recipe/parts.h"
#include "jobs/training/table.h"
#include "mpi/agree.h"

typedef struct iterate_keys {
    int64_t rounds, budget, patience, warmup, keep;
    int start, split;
    bool curve;
} iterate_keys;

enum { ON_TRAIN, ON_VALIDATION };
static const char starts[] = "base|one_shot"; /* AM_START_* */
static const char splits[] = "train|validation";

static const am_param iterate_table[] = {
    {"rounds", AM_PARAM_INT, offsetof(iterate_keys, rounds), "10", 1, 1e6, NULL,
     "rounds of finetuning and merging"},
    {"budget", AM_PARAM_INT, offsetof(iterate_keys, budget), "0", 0, 1e6, NULL,
     "epochs that every run trains, instead of rounds; 0: rounds"},
    {"start", AM_PARAM_CHOICE, offsetof(iterate_keys, start), "base", 0, 0, starts,
     "where the rounds begin: the base, or the best one-shot merge"},
    {"split", AM_PARAM_CHOICE, offsetof(iterate_keys, split), "train", 0, 0, splits,
     "what the rounds train on; validation: one half of it, and all is chosen on the other"},
    {"curve", AM_PARAM_BOOL, offsetof(iterate_keys, curve), "no", 0, 0, NULL,
     "evaluate test data after every round, to be drawn; nothing is chosen by it"},
    {"warmup", AM_PARAM_INT, offsetof(iterate_keys, warmup), "0", 0, 1e6, NULL,
     "rounds over which alpha grows linearly to its value"},
    {"patience", AM_PARAM_INT, offsetof(iterate_keys, patience), "0", 0, 1e6, NULL,
     "stop when validation has not improved for so many rounds, 0: never"},
    {"keep", AM_PARAM_INT, offsetof(iterate_keys, keep), "3", 0, 1e6, NULL,
     "newest models of rounds that stay on disk, beside the best of each alpha; 0: all"},
    {0},
};
static const char *const lists[] = {"methods", "epochs", "alphas", NULL};

/* ---- what is compared ---- */

int am_comparison_alphas(const am_comparison *comparison, const am_train_merge *merge)
{
    return merge->lambda < 0          ? 1
           : merge->n_alphas > 0      ? merge->n_alphas
           : comparison->n_alphas > 0 ? comparison->n_alphas
                                      : 1;
}

double am_comparison_alpha(const am_comparison *comparison, const am_train_merge *merge, int a)
{
    return merge->lambda < 0           ? NAN
           : merge->n_alphas > 0       ? merge->alpha[a]
           : comparison->n_alphas == 0 ? merge->param[merge->lambda]
                                       : comparison->alpha[a];
}

static bool wants_wholes(const am_method *method)
{
    return method->by_rows != NULL || method->is_dense != NULL;
}

static bool works_on_wholes(const am_comparison *comparison)
{
    bool is = false;
    for (int i = 0; i < comparison->n_methods; i++) {
        is = is || wants_wholes(comparison->method[i].method);
    }
    return is;
}

bool am_train_recipe_on_wholes(const am_train_recipe *recipe)
{
    return works_on_wholes(&recipe->one_shot) || works_on_wholes(&recipe->iterate) ||
           (recipe->has_twin && wants_wholes(recipe->merge.method));
}

static int read_methods(const am_node *list, const char *what, am_merge_choice choice,
                        const am_train_merge *fallback, am_comparison *out)
{
    int rc = AM_OK;
    out->method[0] = *fallback;
    out->n_methods = 1;
    if (list == NULL) {
        return AM_OK;
    }
    rc = am_recipe_list(list, what, AM_RECIPE_MAX_LIST);
    for (int i = 0; rc == AM_OK && i < list->n; i++) {
        rc = am_train_merge_read(list->item[i], what, choice, &out->method[i]);
        for (int k = 0; rc == AM_OK && k < i; k++) {
            if (strcmp(out->method[k].name, out->method[i].name) == 0) {
                rc = am_node_fail(list->item[i], "%s: two merges are called %s: give each a name",
                                  what, out->method[i].name);
            }
        }
        out->n_methods = i + 1;
    }
    return rc;
}

/* Alphas only make sense for a method with a lambda; without one there is a single merge. */
static int read_alphas(const am_node *node, const char *what, am_comparison *out)
{
    bool has_lambda = false;
    for (int i = 0; i < out->n_methods; i++) {
        has_lambda = has_lambda || out->method[i].lambda >= 0;
    }
    out->n_alphas = 0;
    if (node == NULL) {
        return AM_OK;
    }
    if (!has_lambda) {
        return am_node_fail(node, "%s: method %s has no lambda to search", what,
                            out->method[0].method->name);
    }
    return am_recipe_reals(node, what, -10, 10, AM_RECIPE_MAX_LIST, out->alpha, &out->n_alphas);
}

static int read_lists(const am_node *map, const char *const what[3], am_merge_choice choice,
                      const am_train_merge *merge, int64_t epochs, am_comparison *out)
{
    const am_node *list = am_node_find(map, "epochs");
    int rc = read_methods(am_node_find(map, "methods"), what[0], choice, merge, out);
    out->epochs[0] = epochs;
    out->n_epochs = 1;
    if (list != NULL) {
        AM_KEEP(am_recipe_ascending(list, what[1], 1, 1000000, AM_RECIPE_MAX_LIST, out->epochs,
                                    &out->n_epochs));
    }
    AM_KEEP(read_alphas(am_node_find(map, "alphas"), what[2], out));
    return rc;
}

/* ---- one_shot and iterate ---- */

static int check_budget(const am_node *map, const am_train_recipe *r)
{
    const am_node *node = am_node_find(map, "budget"), *rounds = am_node_find(map, "rounds");
    if (rounds != NULL) {
        return am_node_fail(rounds, "iterate has both rounds and a budget of epochs: keep one");
    }
    for (int i = 0; i < r->iterate.n_epochs; i++) {
        if (r->budget % r->iterate.epochs[i] != 0) {
            return am_node_fail(node,
                                "iterate.budget: %lld epochs cannot be divided into rounds of "
                                "%lld: choose divisors of the budget for iterate.epochs",
                                (long long)r->budget, (long long)r->iterate.epochs[i]);
        }
    }
    return AM_OK;
}

/* Rows: of every merge and run, base, the best merge and the best run, individual and joint. */
static int check_rows(const am_node *root, const am_train_recipe *r)
{
    const int rows = (r->one_shot.n_methods + (r->has_twin ? 1 : 0)) * r->one_shot.n_epochs +
                     r->iterate.n_methods * r->iterate.n_epochs + 5;
    return rows <= AM_TABLE_ROWS
               ? AM_OK
               : am_node_fail(root,
                              "the comparison has %d rows, %d are the most: list fewer methods "
                              "or epochs under one_shot and iterate",
                              rows, AM_TABLE_ROWS);
}

static int read_iterate(const am_node *map, am_train_recipe *out)
{
    static const char *const what[] = {"iterate.methods", "iterate.epochs", "iterate.alphas"};
    iterate_keys keys = {0};
    int rc = am_recipe_bind(map, iterate_table, lists, "iterate", &keys);
    AM_KEEP(
        read_lists(map, what, AM_MERGE_ALPHAS, &out->merge, out->finetune.epochs, &out->iterate));
    out->rounds = keys.rounds;
    out->budget = keys.budget;
    out->patience = keys.patience;
    out->warmup = keys.warmup;
    out->keep = keys.keep;
    out->start = keys.start;
    out->on_validation = keys.split == ON_VALIDATION;
    out->curve = keys.curve;
    if (out->budget > 0) {
        AM_KEEP(check_budget(map, out));
    }
    return rc;
}

int am_train_comparison_read(const am_node *root, am_train_recipe *out)
{
    static const char *const what[] = {"one_shot.methods", "one_shot.epochs", "one_shot.alphas"};
    const am_node *one_shot = am_node_find(root, "one_shot");
    int rc = am_train_merge_read(am_node_find(root, "merge"), "merge", AM_MERGE_FIXED, &out->merge);
    AM_KEEP(one_shot == NULL ? AM_OK : am_node_map(one_shot, "one_shot"));
    if (one_shot != NULL) {
        AM_KEEP(am_recipe_check_keys(one_shot, NULL, lists, "one_shot"));
    }
    if (rc != AM_OK) {
        return rc;
    }
    AM_KEEP(read_lists(one_shot, what, AM_MERGE_SEARCHED, &out->merge, 1, &out->one_shot));
    AM_KEEP(read_iterate(am_node_find(root, "iterate"), out));
    AM_KEEP(check_rows(root, out));
    return rc;
}

/* ---- as JSON ---- */

static void json_reals(am_json *json, const char *key, const double *values, int n)
{
    am_json_array(json, key);
    for (int i = 0; i < n; i++) {
        am_json_real(json, NULL, values[i]);
    }
    am_json_end_array(json);
}

static void print_lists(const am_comparison *comparison, am_json *json)
{
    am_json_array(json, "methods");
    for (int i = 0; i < comparison->n_methods; i++) {
        am_train_merge_print(&comparison->method[i], NULL, json);
    }
    am_json_end_array(json);
    am_json_array(json, "epochs");
    for (int i = 0; i < comparison->n_epochs; i++) {
        am_json_int(json, NULL, comparison->epochs[i]);
    }
    am_json_end_array(json);
    if (comparison->n_alphas > 0) {
        json_reals(json, "alphas", comparison->alpha, comparison->n_alphas);
    }
}

void am_train_comparison_print(const am_train_recipe *r, am_json *json)
{
    am_train_merge_print(&r->merge, "merge", json);
    am_json_object(json, "one_shot");
    print_lists(&r->one_shot, json);
    am_json_end_object(json);
    const iterate_keys keys = {.rounds = r->rounds,
                               .budget = r->budget,
                               .patience = r->patience,
                               .warmup = r->warmup,
                               .keep = r->keep,
                               .start = r->start,
                               .split = r->on_validation ? ON_VALIDATION : ON_TRAIN,
                               .curve = r->curve};
    am_json_object(json, "iterate");
    am_param_print_json(r->budget > 0 ? &iterate_table[1] : iterate_table, &keys, json);
    print_lists(&r->iterate, json);
    am_json_end_object(json);
}
