/* A merge in a training recipe: method, parameters, scope and semantics. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "jobs/recipe/bind.h"
#include "jobs/recipe/lists.h"
#include "jobs/training/recipe/parts.h"
#include "mpi/agree.h"
#include "solver/merge/sparsify.h"

/* Without alphas: from the second on. */
static const char *const keys[] = {"alphas",    "name", "merge_method", "parameters", "scope",
                                   "semantics", NULL};
static const char *const scopes[] = {"tensor", "global", NULL}; /* bits of am_scope */
static const char *const semantics[] = {"paper", "mergekit", NULL};

/* One value of a parameter. */
static int read_value(const am_method_param *p, const am_node *node, double *value)
{
    bool flag = false;
    int rc = p->is_bool ? am_node_bool(node, p->key, &flag) : am_node_real(node, p->key, value);
    if (p->is_bool) {
        *value = flag ? 1.0 : 0.0;
    }
    if (rc == AM_OK && (p->low != 0.0 || p->high != 0.0) &&
        !(*value >= p->low && *value <= p->high)) {
        rc = am_node_fail(node, "%s: %g is outside %g to %g", p->key, *value, p->low, p->high);
    }
    return rc;
}

/* Values of parameter i that are tried. */
static int read_list(const am_node *node, int i, am_merge_choice choice, am_train_merge *out)
{
    const am_method_param *p = &out->method->params[i];
    am_train_list *list = &out->list[out->n_lists];
    if (choice != AM_MERGE_SEARCHED) {
        return am_node_fail(node,
                            "%s: lists of values are searched in one_shot: methods alone: "
                            "give one value",
                            p->key);
    }
    if (i == out->lambda) {
        return am_node_fail(node, "lambda: give the list as alphas, beside parameters");
    }
    if (out->n_lists == AM_MERGE_LISTS) {
        return am_node_fail(node, "%s: %d parameters with lists are the most", p->key,
                            AM_MERGE_LISTS);
    }
    int rc = am_recipe_list(node, p->key, AM_RECIPE_MAX_LIST);
    *list = (am_train_list){.param = i};
    for (int64_t k = 0; rc == AM_OK && k < node->n; k++) {
        rc = read_value(p, node->item[k], &list->value[list->n++]);
    }
    out->n_lists++;
    out->param[i] = list->value[0];
    return rc;
}

static int set_method_param(const am_node *key, const am_node *value, am_merge_choice choice,
                            am_train_merge *out)
{
    const am_method *method = out->method;
    const char *names[AM_METHOD_MAX_PARAMS + 1] = {0};
    for (int i = 0; method->params[i].key != NULL; i++) {
        names[i] = method->params[i].key;
        if (strcmp(method->params[i].key, key->text) == 0) {
            return value->kind == AM_NODE_LIST
                       ? read_list(value, i, choice, out)
                       : read_value(&method->params[i], value, &out->param[i]);
        }
    }
    const char *nearest = am_nearest(names, key->text);
    return am_node_fail(key, "method %s has no parameter '%s'%s%s%s", method->name, key->text,
                        nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
}

/* Its own alphas. */
static int read_alphas(const am_node *map, am_train_merge *out)
{
    const am_node *node = am_node_find(map, "alphas");
    if (node != NULL && out->lambda < 0) {
        return am_node_fail(node, "alphas: method %s has no lambda to search", out->method->name);
    }
    return node == NULL ? AM_OK
                        : am_recipe_reals(node, "alphas", -10, 10, AM_RECIPE_MAX_LIST, out->alpha,
                                          &out->n_alphas);
}

static int find_method(const am_node *map, am_train_merge *out)
{
    const am_node *node = am_node_find(map, "merge_method");
    const char *name = "task_arithmetic", *names[AM_METHOD_MAX_PARAMS * 8] = {0};
    int rc = node == NULL ? AM_OK : am_node_text(node, "merge_method", &name);
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

/* A bit of what the method offers. */
static int read_bit(const am_node *map, const char *key, const char *const words[], unsigned mask,
                    unsigned *bit)
{
    const am_node *node = am_node_find(map, key);
    const char *word = NULL;
    const int rc = node == NULL ? AM_OK : am_node_text(node, key, &word);
    *bit = 0;
    for (int i = 0; rc == AM_OK && node != NULL && words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0) {
            *bit = 1U << i;
        }
    }
    if (rc == AM_OK && node != NULL && *bit == 0) {
        return am_node_fail(node, "%s: '%s' is neither %s nor %s", key, word, words[0], words[1]);
    }
    if (rc == AM_OK && mask != 0 && (*bit & ~mask) != 0) {
        return am_node_fail(node, "the method has no %s %s", key, word);
    }
    return rc;
}

/* The name of the method unless it is given; it is part of names of files. */
static int read_name(const am_node *map, am_train_merge *out)
{
    const am_node *node = am_node_find(map, "name");
    const char *name = out->method->name;
    int rc = node == NULL ? AM_OK : am_node_text(node, "name", &name);
    bool is_good = rc == AM_OK && name[0] != '\0' && strlen(name) < sizeof out->name;
    for (const char *c = name; is_good && *c != '\0'; c++) {
        is_good = isalnum((unsigned char)*c) || *c == '_';
    }
    if (rc == AM_OK && !is_good) {
        rc = am_node_fail(node, "the name '%s' of a merge must have 1 to %d letters, digits or _",
                          name, AM_MERGE_NAME - 1);
    }
    if (rc == AM_OK) {
        snprintf(out->name, sizeof out->name, "%s", name);
    }
    return rc;
}

static void find_params(am_train_merge *out)
{
    out->lambda = -1;
    for (int i = 0; out->method->params[i].key != NULL; i++) {
        const am_method_param *p = &out->method->params[i];
        out->param[i] = p->required ? 1.0 : p->fallback; /* weight: 1 for every task */
        if (strcmp(p->key, "lambda") == 0) {
            out->lambda = i;
        }
    }
}

double am_train_merge_drops(const am_train_merge *merge)
{
    const double density = merge->param[AM_SPARSE_DENSITY];
    return merge->method->drops_at_random && density > 0 && density < 1 ? 1 - density : 0;
}

int am_train_merge_read(const am_node *map, const char *what, am_merge_choice choice,
                        am_train_merge *out)
{
    const am_node *given = am_node_find(map, "parameters");
    unsigned scope = 0, meaning = 0;
    *out = (am_train_merge){.lambda = -1};
    int rc = map == NULL ? AM_OK : am_node_map(map, what);
    if (map != NULL) {
        AM_KEEP(am_recipe_check_keys(map, NULL, choice == AM_MERGE_FIXED ? keys + 1 : keys, what));
    }
    AM_KEEP(find_method(map, out));
    if (rc != AM_OK) {
        return rc;
    }
    find_params(out);
    AM_KEEP(read_name(map, out));
    AM_KEEP(read_bit(map, "scope", scopes, out->method->scopes, &scope));
    AM_KEEP(read_bit(map, "semantics", semantics, out->method->semantics, &meaning));
    out->scope = (am_scope)scope;
    out->semantics = (am_semantics)meaning;
    AM_KEEP(given == NULL ? AM_OK : am_node_map(given, "parameters"));
    for (int64_t i = 0; rc == AM_OK && given != NULL && i < given->n; i++) {
        rc = set_method_param(given->key[i], given->item[i], choice, out);
    }
    AM_KEEP(read_alphas(map, out));
    if (rc == AM_OK && am_train_merge_variants(out) > AM_MERGE_VARIANTS) {
        rc =
            am_node_fail(given, "the lists of %s have more than %d combinations: give fewer values",
                         out->name, AM_MERGE_VARIANTS);
    }
    return rc;
}

int am_train_merge_check(const am_train_merge *merge, const char *section, int n_tasks)
{
    const am_method *method = merge->method;
    const int most = method->max_models > 0 ? method->max_models : AM_MAX_MODELS;
    return n_tasks >= method->min_models && n_tasks <= most
               ? AM_OK
               : am_fail(AM_E_RECIPE,
                         "%s: merge_method %s takes %d to %d models, the recipe has "
                         "%d tasks: choose another",
                         section, method->name, method->min_models, most, n_tasks);
}

int am_train_merge_check_shared(const am_train_merge *merge, int n_tasks)
{
    const am_method *method = merge->method;
    return method->needs_aux || method->needs_gram
               ? am_fail(AM_E_RECIPE,
                         "merge: merge_method %s needs statistics of the models, and the shared "
                         "model of twins is merged without: choose another",
                         method->name)
               : am_train_merge_check(merge, "merge", n_tasks);
}

static void print_bit(am_json *json, const char *key, const char *const words[], unsigned bit)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (bit == 1U << i) {
            am_json_string(json, key, words[i]);
        }
    }
}

void am_train_merge_print_own(const am_train_merge *merge, am_json *json)
{
    print_bit(json, "scope", scopes, merge->scope);
    print_bit(json, "semantics", semantics, merge->semantics);
}

static void print_value(const am_method_param *p, const char *key, double value, am_json *json)
{
    if (p->is_bool) {
        am_json_bool(json, key, value != 0.0);
    } else {
        am_json_real(json, key, value);
    }
}

static void print_param(const am_train_merge *merge, int i, am_json *json)
{
    const am_method_param *p = &merge->method->params[i];
    const am_train_list *list = NULL;
    for (int k = 0; k < merge->n_lists; k++) {
        list = merge->list[k].param == i ? &merge->list[k] : list;
    }
    if (list == NULL) {
        print_value(p, p->key, merge->param[i], json);
        return;
    }
    am_json_array(json, p->key);
    for (int k = 0; k < list->n; k++) {
        print_value(p, NULL, list->value[k], json);
    }
    am_json_end_array(json);
}

void am_train_merge_print(const am_train_merge *merge, const char *key, am_json *json)
{
    am_json_object(json, key);
    am_json_string(json, "name", merge->name);
    am_json_string(json, "merge_method", merge->method->name);
    am_json_object(json, "parameters");
    for (int i = 0; merge->method->params[i].key != NULL; i++) {
        print_param(merge, i, json);
    }
    am_json_end_object(json);
    if (merge->n_alphas > 0) {
        am_json_array(json, "alphas");
        for (int i = 0; i < merge->n_alphas; i++) {
            am_json_real(json, NULL, merge->alpha[i]);
        }
        am_json_end_array(json);
    }
    am_train_merge_print_own(merge, json);
    am_json_end_object(json);
}

/* ---- variants ---- */

int am_train_merge_variants(const am_train_merge *merge)
{
    int n = 1;
    for (int i = 0; i < merge->n_lists; i++) {
        n *= merge->list[i].n; /* at most 32^4 */
    }
    return n;
}

am_train_merge am_train_merge_variant(const am_train_merge *merge, int v)
{
    am_train_merge out = *merge;
    for (int i = merge->n_lists - 1; i >= 0; v /= merge->list[i--].n) {
        out.param[merge->list[i].param] = merge->list[i].value[v % merge->list[i].n];
    }
    return out;
}

void am_train_merge_searched(const am_train_merge *merge, int v, am_json *json)
{
    const am_train_merge one = am_train_merge_variant(merge, v);
    if (merge->n_lists > 0) {
        am_json_object(json, "searched");
        for (int i = 0; i < merge->n_lists; i++) {
            const int p = merge->list[i].param;
            print_value(&merge->method->params[p], merge->method->params[p].key, one.param[p],
                        json);
        }
        am_json_end_object(json);
    }
}

const char *am_train_merge_searched_text(const am_train_merge *merge, int v, char *text)
{
    const am_train_merge one = am_train_merge_variant(merge, v);
    text[0] = '\0';
    for (int i = 0; i < merge->n_lists; i++) {
        const am_method_param *p = &merge->method->params[merge->list[i].param];
        const double value = one.param[merge->list[i].param];
        const size_t at = strlen(text);
        if (p->is_bool) {
            snprintf(text + at, AM_SEARCHED_TEXT - at, " %s %s", p->key, value != 0 ? "yes" : "no");
        } else {
            snprintf(text + at, AM_SEARCHED_TEXT - at, " %s %g", p->key, value);
        }
    }
    return text;
}
