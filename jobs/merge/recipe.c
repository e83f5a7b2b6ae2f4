/* A merge recipe in mergekit's form. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/merge/grid.h"
#include "jobs/merge/vocab.h"
#include "jobs/recipe/bind.h"
#include "mpi/error.h"
#include "mpi/log.h"

enum { AM_MAX_METHODS = 127 };

static int read_method(const am_node *root, am_merge_recipe *r)
{
    const char *names[AM_MAX_METHODS + 1];
    const char *name = NULL;
    const am_node *node = am_node_find(root, "merge_method");
    int rc = am_node_text(node, "merge_method", &name), n = 0;
    if (rc != 0) {
        return rc;
    }
    r->method = am_method_find(name);
    for (; am_method_table[n] != NULL && n < AM_MAX_METHODS; n++) {
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

/* The output's is `out_dtype`, else `dtype`: arithmetic is wide in any case and rounded once. What
 * mergekit computes in is `dtype`, for its decisions. */
static int read_dtype(const am_node *root, am_merge_recipe *r)
{
    static const char *const names[] = {"float64", "float32", "float16", "bfloat16", NULL};
    static const char *const keys[] = {"dtype", "out_dtype"};
    int rc = 0;
    r->dtype = r->work = AM_DTYPE_COUNT;
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
        r->work = i == 0 ? r->dtype : r->work;
    }
    return rc;
}

/* One of the words of a key, by its index. */
static int read_word(const am_node *root, const char *key, const char *const *words, int *value)
{
    const am_node *node = am_node_find(root, key);
    const char *text = NULL;
    int rc = node != NULL ? am_node_text(node, key, &text) : 0;
    if (rc != 0 || node == NULL) {
        return rc;
    }
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], text) == 0) {
            *value = i;
            return 0;
        }
    }
    char list[128] = "";
    for (int i = 0; words[i] != NULL; i++) {
        (void)snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s",
                       i == 0                 ? ""
                       : words[i + 1] == NULL ? " or "
                                              : ", ",
                       words[i]);
    }
    const char *nearest = am_nearest(words, text);
    return am_node_fail(node, "%s must be %s, not '%.80s'%s%s%s", key, list, text,
                        nearest != NULL ? "; did you mean '" : "", nearest != NULL ? nearest : "",
                        nearest != NULL ? "'?" : "");
}

/* A bit of a mask of what the method offers, 0: it makes no difference. */
static int read_choice(const am_node *root, const char *key, const char *const words[3],
                       unsigned mask, const am_method *method, unsigned *value)
{
    int i = -1;
    int rc = read_word(root, key, words, &i);
    if (rc != 0 || i < 0) {
        return rc;
    }
    if (mask != 0 && (mask & 1U << i) == 0) {
        return am_node_fail(am_node_find(root, key), "%s has no %s %s, only %s", method->name, key,
                            words[i], words[1 - i]);
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

/* Keys of mergekit that change nothing here. */
static void tell_unused(const am_node *root)
{
    static const char *const keys[] = {"chat_template", "name"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const am_node *node = am_node_find(root, keys[i]);
        if (node != NULL) {
            am_info("%s: %s is not used: only tensors are merged", am_node_where(node), keys[i]);
        }
    }
}

/* What to do with inputs that differ. */
static int read_policies(const am_node *root, am_merge_recipe *r)
{
    static const char *const missing[] = {"error", "base", "union", "intersection", NULL};
    static const char *const vocab[] = {"error", "crop", "pad", "map", NULL};
    static const char *const buffers[] = {"error", "base", NULL};
    static const char *const stats_of[] = {"model", "any", NULL};
    int chosen[4] = {0};
    int rc = read_word(root, "missing", missing, &chosen[0]);
    AM_KEEP(read_word(root, "vocab", vocab, &chosen[1]));
    AM_KEEP(read_word(root, "buffers", buffers, &chosen[2]));
    AM_KEEP(read_word(root, "stats_of", stats_of, &chosen[3]));
    r->missing = (am_missing)chosen[0];
    r->vocab = (am_vocab)chosen[1];
    r->buffers = (am_buffers)chosen[2];
    r->stats_of = (am_stats_of)chosen[3];
    AM_KEEP(am_vocab_read_recipe(root, r));
    return rc;
}

static int add_pattern(const am_node *node, am_layers *layers)
{
    const char *text = NULL;
    int rc = am_node_text(node, "layer_pattern", &text);
    if (rc == 0 && !am_layer_pattern_is_sound(text)) {
        rc = am_node_fail(node, "layer_pattern needs one N where the number of the layer stands, "
                                "as in 'layers.N.'");
    }
    if (rc == 0 && layers->n == AM_MAX_LAYER_PATTERNS) {
        rc = am_node_fail(node, "more than %d patterns", AM_MAX_LAYER_PATTERNS);
    }
    if (rc == 0) {
        layers->pattern[layers->n++] = text;
    }
    return rc;
}

static int read_patterns(const am_node *root, am_layers *layers)
{
    const am_node *node = am_node_find(root, "layer_pattern");
    if (node == NULL || node->kind != AM_NODE_LIST) {
        return node != NULL ? add_pattern(node, layers) : 0;
    }
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < node->n; i++) {
        rc = add_pattern(node->item[i], layers);
    }
    return rc;
}

/* Recipes of mergekit's other tools look alike. */
static int refuse_mixture(const am_node *root)
{
    const am_node *node = am_node_find(root, "experts");
    return node == NULL
               ? 0
               : am_node_fail(node, "`experts` is for mergekit-moe, which builds one model around "
                                    "several; allmerge merges `models` by a `merge_method`");
}

int am_merge_recipe_read(const am_yaml *yaml, am_merge_recipe *out)
{
    static const char *const keys[] = {
        "merge_method",  "models",  "base_model",    "parameters", "dtype",
        "out_dtype",     "slices",  "modules",       "tokenizer",  "tokenizer_source",
        "chat_template", "scope",   "semantics",     "seed",       "missing",
        "vocab",         "buffers", "layer_pattern", "name",       "stats_of",
        "grid",          NULL};
    const am_node *root = am_yaml_root(yaml);
    *out = (am_merge_recipe){.yaml = yaml, .setting = am_node_find(root, "parameters")};
    int rc = am_node_map(root, "a recipe");
    AM_KEEP(refuse_mixture(root));
    AM_KEEP(am_recipe_check_keys(root, NULL, keys, ""));
    AM_KEEP(read_method(root, out));
    if (rc == 0) {
        tell_unused(root);
    }
    AM_KEEP(read_dtype(root, out));
    AM_KEEP(read_own_keys(root, out));
    AM_KEEP(read_policies(root, out));
    AM_KEEP(read_patterns(root, &out->layers));
    AM_KEEP(am_merge_read_grid(root, out));
    AM_KEEP(am_merge_check_setting(out->method, out->setting, false));
    AM_KEEP(am_merge_read_models(root, out));
    if (rc == 0 && out->missing == AM_MISSING_BASE && !out->has_base) {
        rc =
            am_node_fail(am_node_find(root, "missing"), "missing: base needs a method with a base");
    }
    return rc;
}

void am_merge_recipe_free(am_merge_recipe *recipe)
{
    free(recipe->models);
    free(recipe->slices);
    *recipe = (am_merge_recipe){0};
}
