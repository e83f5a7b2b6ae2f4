/* Which models a recipe merges: `models`, `slices`, or one module of slices.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "jobs/merge/recipe.h"
#include "jobs/recipe/bind.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/log.h"

enum { AM_MAX_LAYERS = 1000000 };

static int read_range(const am_node *entry, am_merge_model *model)
{
    const am_node *range = am_node_find(entry, "layer_range");
    if (range == NULL || range->kind != AM_NODE_LIST || range->n != 2) {
        return am_node_fail(range != NULL ? range : entry,
                            "a source of a slice needs a layer_range [FIRST, END)");
    }
    int rc = am_node_int(range->item[0], "layer_range", 0, AM_MAX_LAYERS, &model->lo);
    AM_KEEP(am_node_int(range->item[1], "layer_range", 0, AM_MAX_LAYERS, &model->hi));
    if (rc == 0 && model->lo >= model->hi) {
        rc = am_node_fail(range, "layer_range [%lld, %lld) holds no layer", (long long)model->lo,
                          (long long)model->hi);
    }
    return rc;
}

/* The checkpoint beside a model that some methods need: `fisher`, or `stats`. */
static int read_second(const am_node *entry, const am_method *method, am_merge_model *model)
{
    static const char *const keys[] = {"fisher", "stats"};
    const char *wanted = method->needs_aux ? keys[0] : method->needs_gram ? keys[1] : NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const am_node *node = am_node_find(entry, keys[i]);
        if (node != NULL && (wanted == NULL || strcmp(keys[i], wanted) != 0)) {
            am_info("%s: %s is not used by %s", am_node_where(node), keys[i], method->name);
        }
    }
    const am_node *node = wanted != NULL ? am_node_find(entry, wanted) : NULL;
    if (wanted != NULL && node == NULL) {
        return am_node_fail(entry,
                            "%s needs the key '%s' beside each whole model: a checkpoint of its %s",
                            method->name, wanted,
                            method->needs_aux ? "Fisher values" : "Gram matrices (allmerge stats)");
    }
    return node != NULL ? am_node_text(node, wanted, &model->second) : 0;
}

/* An entry of `models`, or a source of a slice. The base may stand among them, as in mergekit: it
 * only says which of its layers are meant. */
static int read_model(const am_node *entry, am_merge_slice *slice, am_merge_recipe *r)
{
    static const char *const whole[] = {"model", "parameters", "fisher", "stats", NULL};
    static const char *const part[] = {"model", "parameters", "layer_range", NULL};
    const char *what = slice->node != NULL ? "sources" : "models";
    am_merge_model *model = &r->models[r->n_models];
    const am_node *path = am_node_find(entry, "model");
    *model = (am_merge_model){
        .node = entry, .setting = am_node_find(entry, "parameters"), .place = model->place};
    int rc = am_node_map(entry, slice->node != NULL ? "a source of a slice" : "an entry of models");
    AM_KEEP(am_recipe_check_keys(entry, NULL, slice->node != NULL ? part : whole, what));
    if (rc == 0 && path == NULL) {
        rc = am_node_fail(entry, "an entry of %s needs the key 'model' with a path", what);
    }
    AM_KEEP(am_node_text(path, "model", &model->path));
    if (slice->node != NULL) {
        AM_KEEP(read_range(entry, model));
    }
    AM_KEEP(read_second(entry, r->method, model));
    AM_KEEP(am_merge_check_setting(r->method, model->setting, true));
    if (rc == 0 && slice->layers < 0) {
        slice->layers = model->hi - model->lo;
    } else if (rc == 0 && model->hi - model->lo != slice->layers) {
        rc = am_node_fail(entry, "%lld layers here, %lld in the sources before it",
                          (long long)(model->hi - model->lo), (long long)slice->layers);
    }
    if (rc == 0 && slice->base != NULL && strcmp(model->path, slice->base->text) == 0) {
        am_debug("%s: the base is not a model of its own", am_node_where(entry));
        slice->base_lo = model->lo;
        return 0;
    }
    slice->n += rc == 0;
    r->n_models += rc == 0;
    return rc;
}

/* Layers of a base that is no source of the slice: those that all sources have. */
static int find_base_layers(const am_merge_recipe *r, am_merge_slice *slice)
{
    if (slice->base == NULL || slice->base_lo >= 0) {
        return 0;
    }
    slice->base_lo = r->models[slice->first].lo;
    for (int m = 0; m < slice->n; m++) {
        if (r->models[slice->first + m].lo != slice->base_lo) {
            return am_node_fail(slice->node,
                                "which layers of the base belong to this slice? Its sources "
                                "differ: add a source {model: %s, layer_range: [...]}",
                                slice->base->text);
        }
    }
    return 0;
}

static int read_models(const am_node *list, am_merge_slice *slice, am_merge_recipe *r)
{
    const am_method *method = r->method;
    const int most = method->max_models > 0 ? method->max_models : AM_MAX_MODELS;
    int rc = 0;
    slice->first = r->n_models;
    slice->entries = (int)list->n;
    slice->base_lo = slice->layers = -1;
    for (int64_t i = 0; i < list->n; i++) {
        r->models[r->n_models].place = (int)i;
        AM_KEEP(read_model(list->item[i], slice, r));
        if (rc == 0 && slice->n > most) {
            rc = am_node_fail(list->item[i], "%s takes at most %d models", method->name, most);
        }
    }
    if (rc == 0 && slice->n < method->min_models) {
        rc = am_node_fail(list, "%s needs %d model%s%s, found %d", method->name, method->min_models,
                          method->min_models == 1 ? "" : "s",
                          slice->base != NULL ? " beside the base" : "", slice->n);
    }
    AM_KEEP(find_base_layers(r, slice));
    return rc;
}

/* The base of the recipe, or of a slice; NULL when there is none or the method has no use for it.
 */
static int read_base(const am_node *map, am_merge_recipe *r, const am_node **base)
{
    const am_method *method = r->method;
    const am_node *node = am_node_find(map, "base_model");
    const char *path = NULL;
    int rc = node != NULL ? am_node_text(node, "base_model", &path) : 0;
    r->base_path = r->base_path != NULL ? r->base_path : path;
    if (rc == 0 && node != NULL && !method->needs_base && !method->takes_base &&
        !method->base_is_model) {
        am_info("%s: base_model is not used by %s", am_node_where(node), method->name);
        node = NULL;
    }
    *base = node != NULL ? node : *base;
    return rc;
}

static int read_slice(const am_node *entry, const am_node *base, am_merge_recipe *r)
{
    static const char *const keys[] = {"sources", "base_model", "parameters", "residual_weight",
                                       NULL};
    am_merge_slice *slice = &r->slices[r->n_slices];
    const am_node *sources = am_node_find(entry, "sources");
    *slice =
        (am_merge_slice){.node = entry, .setting = am_node_find(entry, "parameters"), .base = base};
    int rc = am_node_map(entry, "an entry of slices");
    AM_KEEP(am_recipe_check_keys(entry, NULL, keys, "slices"));
    if (rc == 0 && am_node_find(entry, "residual_weight") != NULL) {
        am_info("%s: residual_weight is not used: mergekit reads and ignores it",
                am_node_where(am_node_find(entry, "residual_weight")));
    }
    AM_KEEP(read_base(entry, r, &slice->base));
    if (r->method->base_is_model) {
        slice->base = NULL; /* sources list all that is merged */
    }
    AM_KEEP(am_merge_check_setting(r->method, slice->setting, false));
    if (rc == 0 && sources == NULL) {
        rc = am_node_fail(entry, "an entry of slices needs the key 'sources' with a list");
    }
    AM_KEEP(am_node_list(sources, "sources"));
    if (rc == 0 && slice->base == NULL && r->method->needs_base) {
        rc = am_node_fail(entry, "%s needs a base_model", r->method->name);
    }
    AM_KEEP(read_models(sources, slice, r));
    if (rc == 0 && r->n_slices > 0 && (slice->base != NULL) != r->has_base) {
        rc = am_node_fail(entry, "some slices have a base_model and some have none: write it at "
                                 "the top of the recipe");
    }
    if (rc == 0) {
        r->has_base = slice->base != NULL;
        slice->at = r->n_slices > 0 ? slice[-1].at + slice[-1].layers : 0;
        r->n_slices++;
    }
    return rc;
}

/* mergekit's form of a model with one part: its slices, or whole models. */
static int read_module(const am_node *modules, const am_node **list, bool *is_whole,
                       am_merge_recipe *r)
{
    static const char *const keys[] = {"slices", "models", "parameters", NULL};
    int rc = am_node_map(modules, "modules");
    if (rc == 0 && modules->n != 1) {
        rc = am_node_fail(modules,
                          "%lld modules: models of several parts are not sliced; list whole models "
                          "under 'models'",
                          (long long)modules->n);
    }
    if (rc != 0) {
        return rc;
    }
    const am_node *module = modules->item[0];
    rc = am_node_map(module, "a module");
    AM_KEEP(am_recipe_check_keys(module, NULL, keys, "modules"));
    r->module_setting = rc == 0 ? am_node_find(module, "parameters") : NULL;
    AM_KEEP(am_merge_check_setting(r->method, r->module_setting, false));
    const am_node *models = am_node_find(module, "models");
    *list = rc == 0 ? am_node_find(module, "slices") : NULL;
    if (rc == 0 && models != NULL && *list != NULL) {
        rc = am_node_fail(module, "write either models or slices, not both");
    }
    *is_whole = models != NULL;
    *list = *is_whole ? models : *list;
    AM_KEEP(am_node_list(*list, *is_whole ? "models" : "slices"));
    return rc;
}

/* How many entries there are at most, before any of them is checked. */
static int64_t count_entries(const am_node *slices)
{
    int64_t n = 0;
    for (int64_t i = 0; i < slices->n; i++) {
        const am_node *sources = am_node_find(slices->item[i], "sources");
        n += sources != NULL ? sources->n : 0;
    }
    return n;
}

/* A model of the engine's job reads one checkpoint. In every slice they stand in the recipe's
 * order, so a checkpoint has more than one slot if the orders of two slices contradict. */
static int assign_slots(am_merge_recipe *r)
{
    const char *path[AM_MAX_MODELS];
    for (int s = 0; s < r->n_slices; s++) {
        int next = 0;
        for (int m = r->slices[s].first; m < r->slices[s].first + r->slices[s].n; m++) {
            while (next < r->n_slots && strcmp(path[next], r->models[m].path) != 0) {
                next++;
            }
            if (next == AM_MAX_MODELS) {
                return am_node_fail(r->models[m].node, "more than %d models", AM_MAX_MODELS);
            }
            path[next] = r->models[m].path;
            r->models[m].slot = next++;
            r->n_slots = next > r->n_slots ? next : r->n_slots;
        }
    }
    return 0;
}

static int read_slices(const am_node *list, const am_node *base, am_merge_recipe *r)
{
    if (list->n == 0) {
        return am_node_fail(list, "slices is empty");
    }
    r->models = am_new(count_entries(list) + 1, sizeof *r->models, "models");
    r->slices = am_new(list->n, sizeof *r->slices, "slices");
    int rc = r->models != NULL && r->slices != NULL ? 0 : AM_E_NOMEM;
    for (int64_t i = 0; rc == 0 && i < list->n; i++) {
        rc = read_slice(list->item[i], base, r);
    }
    AM_KEEP(assign_slots(r));
    const bool is_global =
        r->scope == AM_SCOPE_GLOBAL && (r->method->scopes & AM_SCOPE_GLOBAL) != 0;
    for (int s = 0; rc == 0 && is_global && s < r->n_slices; s++) {
        if (r->slices[s].n != r->n_slots) {
            rc = am_node_fail(r->slices[s].node, "scope: global needs the same models in every "
                                                 "slice, in the same order");
        }
    }
    return rc;
}

/* mergekit's way: for a method that has no base, a base_model that is not listed is the last of the
 * models, with the parameters of the whole merge. */
static int add_base(const am_node *base, am_merge_slice *slice, am_merge_recipe *r)
{
    for (int m = 0; m < slice->n; m++) {
        if (strcmp(r->models[m].path, base->text) == 0) {
            return 0;
        }
    }
    if (slice->n == AM_MAX_MODELS) {
        return am_node_fail(base, "more than %d models", AM_MAX_MODELS);
    }
    am_info("%s: base_model is one of the models that %s merges", am_node_where(base),
            r->method->name);
    r->models[r->n_models++] = (am_merge_model){.path = base->text, .node = base};
    slice->n++;
    return 0;
}

static int read_whole(const am_node *list, const am_node *base, am_merge_recipe *r)
{
    const bool adds_base = base != NULL && r->method->base_is_model;
    r->models = am_new(list->n + 1, sizeof *r->models, "models");
    r->slices = am_new(1, sizeof *r->slices, "slices");
    if (r->models == NULL || r->slices == NULL) {
        return AM_E_NOMEM;
    }
    r->slices[0] = (am_merge_slice){.base = adds_base ? NULL : base};
    r->has_base = base != NULL && !adds_base;
    r->n_slices = 1;
    int rc = read_models(list, &r->slices[0], r);
    if (rc == 0 && adds_base) {
        rc = add_base(base, &r->slices[0], r);
    }
    r->n_slots = r->n_models;
    for (int m = 0; m < r->n_models; m++) {
        r->models[m].slot = m;
    }
    return rc;
}

int am_merge_read_models(const am_node *root, am_merge_recipe *r)
{
    static const char *const forms[] = {"models", "slices", "modules"};
    const am_node *list = NULL, *base = NULL;
    int form = 0, n_forms = 0;
    int rc = read_base(root, r, &base);
    for (int i = 0; i < 3; i++) {
        const am_node *node = am_node_find(root, forms[i]);
        if (node != NULL && n_forms++ > 0) {
            AM_KEEP(am_node_fail(node, "write either %s or %s, not both", forms[form], forms[i]));
        }
        form = node != NULL ? i : form;
        list = node != NULL ? node : list;
    }
    bool is_whole = form == 0;
    if (rc == 0 && form == 2) {
        rc = read_module(list, &list, &is_whole, r);
    }
    AM_KEEP(am_node_list(list, forms[form]));
    if (rc == 0 && base == NULL && r->method->needs_base && is_whole) {
        rc = am_node_fail(root, "%s needs a base_model", r->method->name);
    }
    if (rc == 0) {
        rc = is_whole ? read_whole(list, base, r) : read_slices(list, base, r);
    }
    return rc;
}
