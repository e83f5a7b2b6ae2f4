/* Parameters of a merge: scalars, gradients over the layers, conditions; checked when the recipe is
 * read, evaluated for each tensor. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/merge/recipe.h"
#include "jobs/recipe/bind.h"
#include "mpi/error.h"
#include "mpi/log.h"

enum { AM_MAX_KNOWN = 128 };

/* Parameters of mergekit's methods: known, though perhaps not to the method at hand. */
static const char *const peer_params[] = {
    "weight",      "density",     "gamma",    "epsilon", "normalize",         "rescale",
    "lambda",      "int8_mask",   "t",        "scale",   "nuslerp_flatten",   "nuslerp_row_wise",
    "select_topk", "filter_wise", "max_iter", "tol",     "normalize_weights", "eps",
    "r",           "alpha",       NULL};

static int64_t find_param(const am_method *method, const char *key)
{
    for (int64_t i = 0; method->params[i].key != NULL; i++) {
        if (strcmp(method->params[i].key, key) == 0) {
            return i;
        }
    }
    return -1;
}

/* ---- values of parameters ---- */

/* A list of scalars: checked when the recipe was read. */
static bool is_gradient(const am_node *node)
{
    return node->kind == AM_NODE_LIST && node->n > 0 && node->item[0]->kind == AM_NODE_SCALAR;
}

static int check_scalar(const am_node *node, const am_method_param *p)
{
    double value = 0;
    if (p->is_bool) {
        bool is_true = false;
        bool is_number = node->kind == AM_NODE_SCALAR && node->scalar == AM_SCALAR_INT;
        return is_number && (node->integer == 0 || node->integer == 1)
                   ? 0
                   : am_node_bool(node, p->key, &is_true);
    }
    int rc = am_node_real(node, p->key, &value);
    if (rc == 0 && (p->low != 0 || p->high != 0) && (value < p->low || value > p->high)) {
        rc = am_node_fail(node, "%s must be from %g to %g, not %s", p->key, p->low, p->high,
                          node->text);
    }
    return rc;
}

static int check_value(const am_node *node, const am_method_param *p);

static int check_condition(const am_node *node, const am_method_param *p)
{
    static const char *const keys[] = {"filter", "value", NULL};
    const char *filter = NULL;
    int rc = am_recipe_check_keys(node, NULL, keys, p->key);
    const am_node *given = am_node_find(node, "filter");
    const am_node *value = am_node_find(node, "value");
    if (given != NULL) {
        AM_KEEP(am_node_text(given, "filter", &filter));
    }
    if (rc == 0 && value == NULL) {
        rc = am_node_fail(node, "%s: an entry needs a value", p->key);
    }
    AM_KEEP(check_value(value, p));
    return rc;
}

/* Scalar, list of scalars, {filter, value}, or list of these. */
static int check_value(const am_node *node, const am_method_param *p)
{
    if (node->kind == AM_NODE_SCALAR) {
        return check_scalar(node, p);
    }
    if (node->kind == AM_NODE_MAP) {
        return check_condition(node, p);
    }
    if (node->n == 0) {
        return am_node_fail(node,
                            "%s must be a value, a list of values or a list of "
                            "{filter, value}",
                            p->key);
    }
    const bool has_maps = node->item[0]->kind == AM_NODE_MAP;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < node->n; i++) {
        const am_node *item = node->item[i];
        if (has_maps != (item->kind == AM_NODE_MAP)) {
            rc = am_node_fail(item, "%s mixes numbers and {filter, value} in one list", p->key);
        } else {
            rc = has_maps ? check_condition(item, p) : check_scalar(item, p);
        }
    }
    return rc;
}

static double scalar_value(const am_node *node)
{
    double value = 0;
    if (node->scalar == AM_SCALAR_BOOL) {
        return node->boolean;
    }
    return am_node_real(node, "", &value) == 0 ? value : (double)NAN; /* checked before */
}

/* Piecewise linear over [0, 1]; of flags, the one at or before t. */
static double gradient_value(const am_node *list, double t, bool is_bool)
{
    const double at = t * (double)(list->n - 1);
    const int64_t lo = (int64_t)floor(at);
    const int64_t hi = lo + 1 < list->n ? lo + 1 : list->n - 1;
    const double part = at - (double)lo;
    if (is_bool) {
        return scalar_value(list->item[lo]);
    }
    return (1 - part) * scalar_value(list->item[lo]) + part * scalar_value(list->item[hi]);
}

/* Whether a {filter, value} is for this tensor. */
static bool fits(const am_node *condition, const char *tensor)
{
    const am_node *filter = am_node_find(condition, "filter");
    return filter == NULL || am_node_is_null(filter) || strcmp(filter->text, "*") == 0 ||
           strstr(tensor, filter->text) != NULL;
}

/* False when no filter fits: the next level decides. */
static bool evaluate(const am_node *node, const char *tensor, double t, bool is_bool, double *value)
{
    if (node->kind == AM_NODE_SCALAR) {
        *value = scalar_value(node);
        return true;
    }
    if (is_gradient(node)) {
        *value = gradient_value(node, t, is_bool);
        return true;
    }
    const am_node *const *list =
        node->kind == AM_NODE_MAP ? &node : (const am_node *const *)node->item;
    for (int64_t i = 0; i < (node->kind == AM_NODE_MAP ? 1 : node->n); i++) {
        if (fits(list[i], tensor)) {
            return evaluate(am_node_find(list[i], "value"), tensor, t, is_bool, value);
        }
    }
    return false;
}

int am_merge_recipe_value(const am_merge_recipe *recipe, int p, const am_merge_slice *slice,
                          const am_merge_model *model, const char *tensor, double t, double *value)
{
    const am_method_param *param = &recipe->method->params[p];
    const am_node *const levels[] = {model != NULL ? model->setting : NULL, slice->setting,
                                     recipe->module_setting, recipe->setting};
    const am_node *given = NULL;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        const am_node *node = am_node_find(levels[i], param->key);
        given = given != NULL ? given : node;
        if (node != NULL && evaluate(node, tensor, t, param->is_bool, value)) {
            return 0;
        }
    }
    *value = param->fallback;
    if (!param->required) {
        return 0;
    }
    const am_node *place = model != NULL ? model->node : am_yaml_root(recipe->yaml);
    return given != NULL
               ? am_node_fail(given,
                              "no entry of %s fits tensor '%s': add an entry without a filter",
                              param->key, tensor)
               : am_node_fail(place, "%s needs parameter '%s' for %s", recipe->method->name,
                              param->key, model != NULL ? model->path : "the merge");
}

/* ---- reading ---- */

static void add_known(const char *known[AM_MAX_KNOWN], int *n, const char *key)
{
    for (int i = 0; i < *n; i++) {
        if (strcmp(known[i], key) == 0) {
            return;
        }
    }
    if (*n < AM_MAX_KNOWN - 1) {
        known[(*n)++] = key;
    }
}

/* The method's own keys first, so that they are the nearest ones on a tie. NULL-terminated. */
static void list_known(const am_method *method, const char *known[AM_MAX_KNOWN])
{
    int n = 0;
    for (int i = 0; method->params[i].key != NULL; i++) {
        add_known(known, &n, method->params[i].key);
    }
    for (int m = 0; am_method_table[m] != NULL; m++) {
        for (int i = 0; am_method_table[m]->params[i].key != NULL; i++) {
            add_known(known, &n, am_method_table[m]->params[i].key);
        }
    }
    for (int i = 0; peer_params[i] != NULL; i++) {
        add_known(known, &n, peer_params[i]);
    }
    known[n] = NULL;
}

/* Keys of a `parameters` map: checked values for the method's own, a line for what other methods
 * know, an error for what none knows. */
int am_merge_check_setting(const am_method *method, const am_node *map, bool is_model)
{
    const char *known[AM_MAX_KNOWN];
    int rc = 0;
    if (map == NULL) {
        return 0;
    }
    list_known(method, known);
    AM_KEEP(am_node_map(map, "parameters"));
    AM_KEEP(am_recipe_check_keys(map, NULL, known, "parameters"));
    for (int64_t i = 0; rc == 0 && i < map->n; i++) {
        const char *key = map->key[i]->text;
        const int64_t p = find_param(method, key);
        if (am_node_is_null(map->item[i])) {
            continue;
        }
        if (p < 0) {
            am_info("%s: parameter '%s' is not used by %s", am_node_where(map->key[i]), key,
                    method->name);
            continue;
        }
        if (is_model && !method->params[p].per_model) {
            am_warn("%s: '%s' is one for the whole merge: not read from a model; write it under "
                    "the recipe's parameters",
                    am_node_where(map->key[i]), key);
        }
        rc = check_value(map->item[i], &method->params[p]);
    }
    return rc;
}
