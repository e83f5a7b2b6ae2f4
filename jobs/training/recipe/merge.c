/* A merge in a training recipe: method, parameters, scope and semantics. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "jobs/recipe/bind.h"
#include "jobs/training/recipe/parts.h"
#include "mpi/agree.h"
#include "solver/merge/sparsify.h"

static const char *const keys[] = {"name",  "merge_method", "parameters",
                                   "scope", "semantics",    NULL};
static const char *const scopes[] = {"tensor", "global", NULL}; /* bits of am_scope */
static const char *const semantics[] = {"paper", "mergekit", NULL};

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

int am_train_merge_read(const am_node *map, const char *what, am_train_merge *out)
{
    const am_node *given = am_node_find(map, "parameters");
    unsigned scope = 0, meaning = 0;
    *out = (am_train_merge){.lambda = -1};
    int rc = map == NULL ? AM_OK : am_node_map(map, what);
    if (map != NULL) {
        AM_KEEP(am_recipe_check_keys(map, NULL, keys, what));
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
        rc = set_method_param(out->method, given->key[i], given->item[i], out->param);
    }
    return rc;
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

void am_train_merge_print(const am_train_merge *merge, const char *key, am_json *json)
{
    am_json_object(json, key);
    am_json_string(json, "name", merge->name);
    am_json_string(json, "merge_method", merge->method->name);
    am_json_object(json, "parameters");
    for (int i = 0; merge->method->params[i].key != NULL; i++) {
        if (merge->method->params[i].is_bool) {
            am_json_bool(json, merge->method->params[i].key, merge->param[i] != 0.0);
        } else {
            am_json_real(json, merge->method->params[i].key, merge->param[i]);
        }
    }
    am_json_end_object(json);
    am_train_merge_print_own(merge, json);
    am_json_end_object(json);
}
