/* A merge recipe in mergekit's form. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/merge/recipe.h"
#include "jobs/recipe/bind.h"
#include "mpi/arena.h"
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

static bool is_number_list(const am_node *node)
{
    for (int64_t i = 0; i < node->n; i++) {
        if (!am_node_is_number(node->item[i])) {
            return false;
        }
    }
    return node->n > 0;
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

/* Scalar, list of numbers, or list of {filter, value}. */
static int check_value(const am_node *node, const am_method_param *p)
{
    if (node->kind == AM_NODE_SCALAR) {
        return check_scalar(node, p);
    }
    if (node->kind == AM_NODE_MAP || node->n == 0) {
        return am_node_fail(node,
                            "%s must be a value, a list of numbers or a list of "
                            "{filter, value}",
                            p->key);
    }
    const bool has_maps = node->item[0]->kind == AM_NODE_MAP;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < node->n; i++) {
        const am_node *item = node->item[i];
        if (has_maps != (item->kind == AM_NODE_MAP)) {
            rc = am_node_fail(item, "%s mixes numbers and {filter, value} in one list", p->key);
        } else if (!has_maps && p->is_bool) {
            rc = am_node_fail(item, "%s must be true or false, not a list", p->key);
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

/* Piecewise linear over [0, 1]. */
static double gradient_value(const am_node *list, double t)
{
    const double at = t * (double)(list->n - 1);
    const int64_t lo = (int64_t)floor(at);
    const int64_t hi = lo + 1 < list->n ? lo + 1 : list->n - 1;
    const double part = at - (double)lo;
    return (1 - part) * scalar_value(list->item[lo]) + part * scalar_value(list->item[hi]);
}

/* False when no filter fits: the next level decides. */
static bool evaluate(const am_node *node, const char *tensor, double t, double *value)
{
    if (node->kind == AM_NODE_SCALAR) {
        *value = scalar_value(node);
        return true;
    }
    if (is_number_list(node)) {
        *value = gradient_value(node, t);
        return true;
    }
    for (int64_t i = 0; i < node->n; i++) {
        const am_node *filter = am_node_find(node->item[i], "filter");
        if (filter == NULL || strcmp(filter->text, "*") == 0 ||
            strstr(tensor, filter->text) != NULL) {
            return evaluate(am_node_find(node->item[i], "value"), tensor, t, value);
        }
    }
    return false;
}

int am_merge_recipe_value(const am_merge_recipe *recipe, int p, int model, const char *tensor,
                          double t, double *value)
{
    const am_method_param *param = &recipe->method->params[p];
    const am_node *own =
        model >= 0 ? am_node_find(recipe->models[model].setting, param->key) : NULL;
    const am_node *general = am_node_find(recipe->setting, param->key);
    if ((own != NULL && evaluate(own, tensor, t, value)) ||
        (general != NULL && evaluate(general, tensor, t, value))) {
        return 0;
    }
    *value = param->fallback;
    if (!param->required) {
        return 0;
    }
    const am_node *place = model >= 0 ? recipe->models[model].node : am_yaml_root(recipe->yaml);
    return own != NULL || general != NULL
               ? am_node_fail(own != NULL ? own : general,
                              "no entry of %s fits tensor '%s': add an entry without a filter",
                              param->key, tensor)
               : am_node_fail(place, "%s needs parameter '%s' for %s", recipe->method->name,
                              param->key, model >= 0 ? recipe->models[model].path : "the merge");
}

/* ---- layers ---- */

int64_t am_layer_number(const char *tensor)
{
    static const char *const words[] = {"layers.", "layer.", "blocks.", "block.", "h."};
    for (const char *at = tensor; at != NULL; at = strchr(at, '.')) {
        at += *at == '.';
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            const size_t bytes = strlen(words[i]);
            const size_t digits =
                strncmp(at, words[i], bytes) == 0 ? strspn(at + bytes, "0123456789") : 0;
            if (digits > 0 && digits < 10 && at[bytes + digits] == '.') {
                return strtoll(at + bytes, NULL, 10);
            }
        }
    }
    return -1;
}

double am_layer_position(const char *tensor, int64_t n_layers)
{
    const int64_t layer = am_layer_number(tensor);
    return layer < 0 || n_layers < 2 ? 0 : (double)layer / (double)(n_layers - 1);
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
static int check_setting(const am_method *method, const am_node *map, bool is_model)
{
    const char *known[AM_MAX_KNOWN];
    int rc = 0;
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

static int read_method(const am_node *root, am_merge_recipe *r)
{
    const char *names[AM_MAX_KNOWN];
    const char *name = NULL;
    const am_node *node = am_node_find(root, "merge_method");
    int rc = am_node_text(node, "merge_method", &name), n = 0;
    if (rc != 0) {
        return rc;
    }
    r->method = am_method_find(name);
    for (; am_method_table[n] != NULL && n < AM_MAX_KNOWN - 1; n++) {
        names[n] = am_method_table[n]->name;
    }
    names[n] = NULL;
    if (r->method == NULL) {
        const char *nearest = am_nearest(names, name);
        return am_node_fail(node, "unknown merge_method '%s'%s%s%s; see `allmerge methods`", name,
                            nearest != NULL ? "; did you mean '" : "",
                            nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
    }
    while (r->method->params[r->n_params].key != NULL) {
        r->n_params++;
    }
    return 0;
}

/* `out_dtype`, else `dtype`: arithmetic is wide in any case and rounded once. */
static int read_dtype(const am_node *root, am_merge_recipe *r)
{
    static const char *const names[] = {"float64", "float32", "float16", "bfloat16", NULL};
    static const char *const keys[] = {"dtype", "out_dtype"};
    int rc = 0;
    r->dtype = AM_DTYPE_COUNT;
    for (int i = 0; rc == 0 && i < 2; i++) {
        const am_node *node = am_node_find(root, keys[i]);
        const char *text = NULL;
        if (node == NULL) {
            continue;
        }
        rc = am_node_text(node, keys[i], &text);
        if (rc != 0) {
            break;
        }
        r->dtype = am_dtype_parse(text);
        if (r->dtype == AM_DTYPE_COUNT || !am_dtype_is_float(r->dtype)) {
            const char *nearest = am_nearest(names, text);
            rc = am_node_fail(node,
                              "%s must be one of float64, float32, float16, bfloat16, not "
                              "'%.80s'%s%s%s",
                              keys[i], text, nearest != NULL ? "; did you mean '" : "",
                              nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
        }
    }
    return rc;
}

static int read_model(const am_node *entry, am_merge_recipe *r)
{
    static const char *const keys[] = {"model", "parameters", NULL};
    am_merge_model *model = &r->models[r->n_models];
    const am_node *path = am_node_find(entry, "model");
    *model = (am_merge_model){.node = entry, .setting = am_node_find(entry, "parameters")};
    int rc = am_node_map(entry, "an entry of models");
    AM_KEEP(am_recipe_check_keys(entry, NULL, keys, "models"));
    if (rc == 0 && path == NULL) {
        rc = am_node_fail(entry, "an entry of models needs the key 'model' with a path");
    }
    AM_KEEP(am_node_text(path, "model", &model->path));
    if (rc == 0 && model->setting != NULL) {
        rc = check_setting(r->method, model->setting, true);
    }
    if (rc == 0 && r->base != NULL && strcmp(model->path, r->base->text) == 0) {
        am_debug("%s: the base is not a model of its own", am_node_where(entry));
        return 0; /* mergekit lets the base stand among the models */
    }
    r->n_models += rc == 0;
    return rc;
}

static int read_models(const am_node *root, am_merge_recipe *r)
{
    const am_node *list = am_node_find(root, "models");
    const am_node *base = am_node_find(root, "base_model");
    const char *path = NULL;
    int rc = 0;
    if (base != NULL) {
        AM_KEEP(am_node_text(base, "base_model", &path));
    }
    if (rc == 0 && base == NULL && r->method->needs_base) {
        rc = am_node_fail(root, "%s needs a base_model", r->method->name);
    }
    const bool uses_base = r->method->needs_base || r->method->takes_base;
    if (rc == 0 && base != NULL && !uses_base) {
        am_info("%s: base_model is not used by %s", am_node_where(base), r->method->name);
    }
    r->base = uses_base ? base : NULL;
    AM_KEEP(am_node_list(list, "models"));
    if (rc != 0) {
        return rc;
    }
    r->models = am_new(list->n + 1, sizeof *r->models, "models");
    if (r->models == NULL) {
        return AM_E_NOMEM;
    }
    const int most = r->method->max_models > 0 ? r->method->max_models : AM_MAX_MODELS;
    for (int64_t i = 0; i < list->n; i++) {
        AM_KEEP(read_model(list->item[i], r));
        if (rc == 0 && r->n_models > most) {
            rc = am_node_fail(list->item[i], "%s takes at most %d models", r->method->name, most);
        }
    }
    if (rc == 0 && r->n_models < r->method->min_models) {
        rc = am_node_fail(list, "%s needs %d model%s%s, found %d", r->method->name,
                          r->method->min_models, r->method->min_models == 1 ? "" : "s",
                          r->base != NULL ? " beside the base" : "", r->n_models);
    }
    return rc;
}

/* One of two words, if the method offers it. mask: what the method offers, 0: it makes no
 * difference. */
static int read_choice(const am_node *root, const char *key, const char *const words[3],
                       unsigned mask, const am_method *method, unsigned *value)
{
    const am_node *node = am_node_find(root, key);
    const char *text = NULL;
    if (node == NULL) {
        return 0;
    }
    int rc = am_node_text(node, key, &text);
    if (rc != 0) {
        return rc;
    }
    const int i = strcmp(text, words[0]) == 0 ? 0 : strcmp(text, words[1]) == 0 ? 1 : -1;
    if (i < 0) {
        const char *nearest = am_nearest(words, text);
        return am_node_fail(node, "%s must be %s or %s, not '%.80s'%s%s%s", key, words[0], words[1],
                            text, nearest != NULL ? "; did you mean '" : "",
                            nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
    }
    if (mask != 0 && (mask & 1U << i) == 0) {
        return am_node_fail(node, "%s has no %s %s, only %s", method->name, key, words[i],
                            words[1 - i]);
    }
    *value = 1U << i;
    return 0;
}

/* `scope`, `semantics` and `seed`: allmerge's own keys. */
static int read_own_keys(const am_node *root, am_merge_recipe *r)
{
    static const char *const scopes[] = {"tensor", "global", NULL};
    static const char *const semantics[] = {"paper", "mergekit", NULL};
    const am_method *m = r->method;
    const am_node *seed = am_node_find(root, "seed");
    unsigned scope = m->scopes == AM_SCOPE_GLOBAL ? AM_SCOPE_GLOBAL : AM_SCOPE_TENSOR;
    unsigned meaning =
        m->semantics == AM_SEMANTICS_PAPER ? AM_SEMANTICS_PAPER : AM_SEMANTICS_MERGEKIT;
    int64_t value = 0;
    if (m->default_scope != 0) {
        scope = m->default_scope;
    }
    int rc = read_choice(root, "scope", scopes, m->scopes, m, &scope);
    AM_KEEP(read_choice(root, "semantics", semantics, m->semantics, m, &meaning));
    if (rc == 0 && seed != NULL) {
        rc = am_node_int(seed, "seed", 0, INT64_MAX, &value);
    }
    r->scope = (am_scope)scope;
    r->semantics = (am_semantics)meaning;
    r->seed = (uint64_t)value;
    return rc;
}

/* Keys of mergekit that would change the result and are not done yet. */
static int refuse_unsupported(const am_node *root)
{
    static const char *const keys[] = {"slices", "modules", "tokenizer", "tokenizer_source"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const am_node *node = am_node_find(root, keys[i]);
        if (node != NULL) {
            return am_node_fail(node, "'%s' is not supported yet: list whole models under 'models'",
                                keys[i]);
        }
    }
    if (am_node_find(root, "chat_template") != NULL) {
        am_info("%s: chat_template is not used: only tensors are merged",
                am_node_where(am_node_find(root, "chat_template")));
    }
    return 0;
}

int am_merge_recipe_read(const am_yaml *yaml, am_merge_recipe *out)
{
    static const char *const keys[] = {
        "merge_method",  "models", "base_model", "parameters", "dtype",
        "out_dtype",     "slices", "modules",    "tokenizer",  "tokenizer_source",
        "chat_template", "scope",  "semantics",  "seed",       NULL};
    const am_node *root = am_yaml_root(yaml);
    *out = (am_merge_recipe){.yaml = yaml, .setting = am_node_find(root, "parameters")};
    int rc = am_node_map(root, "a recipe");
    AM_KEEP(am_recipe_check_keys(root, NULL, keys, ""));
    AM_KEEP(refuse_unsupported(root));
    AM_KEEP(read_method(root, out));
    AM_KEEP(read_dtype(root, out));
    AM_KEEP(read_own_keys(root, out));
    if (rc == 0 && out->setting != NULL) {
        rc = check_setting(out->method, out->setting, false);
    }
    AM_KEEP(read_models(root, out));
    return rc;
}

void am_merge_recipe_free(am_merge_recipe *recipe)
{
    free(recipe->models);
    *recipe = (am_merge_recipe){0};
}
