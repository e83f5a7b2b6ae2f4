/* Sections merge, one_shot and iterate of a training recipe. SPDX-License-Identifier: BSD-3-Clause
 */
#include "jobs/training/recipe/parts.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#include "jobs/recipe/bind.h"
#include "jobs/recipe/lists.h"
#include "mpi/agree.h"

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

int am_train_comparison_read(const am_node *root, am_train_recipe *out)
{
    const am_node *one_shot = am_node_find(root, "one_shot");
    const am_node *iterate = am_node_find(root, "iterate");
    const am_node *epochs = am_node_find(one_shot, "epochs");
    iterate_keys keys = {0};
    int rc = read_merge(root, out);
    AM_KEEP(one_shot == NULL ? AM_OK : am_node_map(one_shot, "one_shot"));
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

static void json_reals(am_json *json, const char *key, const double *values, int n)
{
    am_json_array(json, key);
    for (int i = 0; i < n; i++) {
        am_json_real(json, NULL, values[i]);
    }
    am_json_end_array(json);
}

void am_train_comparison_print(const am_train_recipe *r, am_json *json)
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
