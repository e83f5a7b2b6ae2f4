/* The section `model` of a training recipe. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/model.h"

#include <stdio.h>
#include <string.h>
#include "jobs/recipe/bind.h"
#include "mpi/error.h"

typedef struct model_keys {
    double label_smoothing;
    bool recompute, linearised;
} model_keys;

/* Keys of every model. */
static const am_param model_table[] = {
    {"label_smoothing", AM_PARAM_REAL, offsetof(model_keys, label_smoothing), "0", 0, 0.999, NULL,
     "share of every label that is spread over all classes"},
    {"recompute", AM_PARAM_BOOL, offsetof(model_keys, recompute), "no", 0, 0, NULL,
     "forget activations inside blocks and compute them again for backward"},
    {"linearised", AM_PARAM_BOOL, offsetof(model_keys, linearised), "no", 0, 0, NULL,
     "train and evaluate in the tangent space of the base: f(base) + J (theta - base)"},
    {0},
};

/* Adapters, with the names that PEFT gives them. */
static const am_param lora_table[] = {
    {"r", AM_PARAM_INT, offsetof(am_lora_options, r), "8", 1, 65536, NULL, "rank of an adapter"},
    {"lora_alpha", AM_PARAM_REAL, offsetof(am_lora_options, lora_alpha), "8", 0, 1e9, NULL,
     "an adapter is scaled by lora_alpha / r"},
    {"lora_dropout", AM_PARAM_REAL, offsetof(am_lora_options, lora_dropout), "0", 0, 0.99, NULL,
     "share of an adapter's inputs that training drops"},
    {"use_rslora", AM_PARAM_BOOL, offsetof(am_lora_options, use_rslora), "no", 0, 0, NULL,
     "scale by lora_alpha / sqrt(r)"},
    {0},
};

enum { MODEL_KEYS = 48 };

static int add_names(const am_param *table, const char **names, int n)
{
    for (int i = 0; table != NULL && table[i].key != NULL; i++) {
        AM_ASSERT(n < MODEL_KEYS);
        names[n++] = table[i].key;
    }
    return n;
}

/* ---- presets ---- */

static int read_preset_list(const am_node *map, am_preset_list *list)
{
    const am_node *node = list->key != NULL ? am_node_find(map, list->key) : NULL;
    if (node == NULL) {
        return AM_OK;
    }
    int rc = am_node_list(node, list->key);
    if (rc == AM_OK && (node->n < 1 || node->n > AM_PRESET_MAX_LIST)) {
        rc = am_node_fail(node, "model.%s needs 1 to %d items, not %lld", list->key,
                          AM_PRESET_MAX_LIST, (long long)node->n);
    }
    list->n = rc == AM_OK ? (int)node->n : 0;
    for (int i = 0; i < list->n; i++) {
        AM_KEEP(am_node_int(node->item[i], list->key, 1, 1 << 24, &list->value[i]));
    }
    return rc;
}

static int find_preset(const am_node *map, am_model *out)
{
    const am_node *node = am_node_find(map, "preset");
    const char *name = "mlp", *names[MODEL_KEYS + 1] = {0};
    const int rc = node == NULL ? AM_OK : am_node_text(node, "model.preset", &name);
    if (rc != AM_OK) {
        return rc;
    }
    out->preset = am_preset_find(name);
    if (out->preset != NULL) {
        out->list = out->preset->list;
        return AM_OK;
    }
    for (int i = 0; am_preset_table[i] != NULL && i < MODEL_KEYS; i++) {
        names[i] = am_preset_table[i]->name;
    }
    const char *nearest = am_nearest(names, name);
    return am_node_fail(node, "there is no preset '%s'%s%s%s", name,
                        nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
}

/* The keys of the preset and, in `keys`, those of every model. */
static int read_preset(const am_node *map, am_model *out, model_keys *keys)
{
    const char *own[MODEL_KEYS + 4] = {0}, *common[MODEL_KEYS + 4] = {0};
    int rc = find_preset(map, out);
    if (rc != AM_OK) {
        return rc;
    }
    int n = add_names(model_table, own, 0);
    own[n++] = "preset";
    own[n++] = "freeze";
    own[n++] = "lora";
    own[n] = out->list.key;
    n = add_names(out->preset->params, common, 0);
    common[n++] = "preset";
    common[n++] = "freeze";
    common[n++] = "lora";
    common[n] = out->list.key;
    rc = am_recipe_bind(map, out->preset->params, own, "model", out->options);
    AM_KEEP(am_recipe_bind(map, model_table, common, "model", keys));
    AM_KEEP(read_preset_list(map, &out->list));
    AM_KEEP(out->preset->build(out->options, &out->list, &out->net));
    if (rc == AM_OK && out->net.error != AM_OK) {
        rc = out->net.error;
    }
    return rc;
}

/* ---- lists of layers ---- */

static int find_layer(const am_node *map, int *index)
{
    const am_node *node = am_node_find(map, "layer");
    const char *name = NULL, *names[MODEL_KEYS + 1] = {0};
    int rc = am_node_map(map, "model.layers");
    if (rc == AM_OK && node == NULL) {
        rc = am_node_fail(map, "an item of model.layers needs the key layer");
    }
    AM_KEEP(am_node_text(node, "layer", &name));
    if (rc != AM_OK) {
        return rc;
    }
    *index = am_layer_find(name);
    if (*index >= 0) {
        return AM_OK;
    }
    int n = 0;
    for (int i = 0; am_layer_at(i) != NULL && n < MODEL_KEYS; i++) {
        if (!am_layer_at(i)->is_loss) {
            names[n++] = am_layer_at(i)->name;
        }
    }
    const char *nearest = am_nearest(names, name);
    return am_node_fail(node, "there is no layer '%s'%s%s%s: see solver/README.md", name,
                        nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
}

/* Value that the layer called `name` makes. */
static int find_value(const am_net *net, const am_node *node, int *value)
{
    const char *name = NULL, *names[AM_NET_MAX_NODES + 1];
    const int rc = am_node_text(node, "from", &name);
    if (rc != AM_OK) {
        return rc;
    }
    if (strcmp(name, "samples") == 0) {
        *value = AM_NET_SAMPLES;
        return AM_OK;
    }
    for (int i = 0; i < net->n; i++) {
        if (strcmp(net->node[i].name, name) == 0) {
            *value = i + 1;
            return AM_OK;
        }
        names[i] = net->node[i].name;
    }
    names[net->n] = NULL;
    const char *nearest = am_nearest(names, name);
    return am_node_fail(node, "no earlier layer is called '%s'%s%s%s", name,
                        nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
}

/* from: one name, or a list of as many as the layer takes; the layer before, if it is not there. */
static int read_from(const am_net *net, const am_node *map, int inputs, int *in)
{
    const am_node *from = am_node_find(map, "from");
    in[0] = net->n;
    if (from == NULL) {
        return inputs == 1
                   ? AM_OK
                   : am_node_fail(map, "this layer takes %d inputs: name them, from: [a, b]",
                                  inputs);
    }
    if (from->kind != AM_NODE_LIST) {
        return inputs == 1 ? find_value(net, from, &in[0])
                           : am_node_fail(from, "this layer takes %d inputs, not 1", inputs);
    }
    int rc = from->n == inputs ? AM_OK
                               : am_node_fail(from, "this layer takes %d inputs, not %lld", inputs,
                                              (long long)from->n);
    for (int i = 0; i < inputs; i++) {
        AM_KEEP(find_value(net, from->item[i], &in[i]));
    }
    return rc;
}

static int read_layer(const am_node *map, int64_t number, int64_t total, am_net *net)
{
    static const char *const others[] = {"layer", "name", "from", "cut", NULL};
    static const am_param none[] = {{0}};
    char name[AM_NET_NAME];
    const char *given = NULL;
    bool is_cut = false;
    int index = 0, in[AM_LAYER_INPUTS] = {0};
    int rc = find_layer(map, &index);
    if (rc != AM_OK) {
        return rc;
    }
    const am_layer *layer = am_layer_at(index);
    const am_node *named = am_node_find(map, "name"), *cut = am_node_find(map, "cut");
    _Alignas(16) unsigned char attrs[AM_LAYER_ATTR_BYTES] = {0};
    snprintf(name, sizeof name, total <= 10 ? "layers.%lld" : "layers.%02lld", (long long)number);
    AM_KEEP(named == NULL ? AM_OK : am_node_text(named, "name", &given));
    AM_KEEP(cut == NULL ? AM_OK : am_node_bool(cut, "cut", &is_cut));
    AM_KEEP(read_from(net, map, layer->inputs, in));
    AM_KEEP(am_recipe_bind(map, layer->attrs != NULL ? layer->attrs : none, others, layer->name,
                           attrs));
    if (rc == AM_OK && is_cut) {
        am_net_cut(net);
    }
    AM_KEEP(am_net_add_node(net, given != NULL ? given : name, index, in, attrs));
    return rc;
}

static int read_layers(const am_node *map, am_model *out, model_keys *keys)
{
    static const char *const others[] = {"layers", "freeze", "lora", NULL};
    const am_node *list = am_node_find(map, "layers");
    int rc = am_recipe_bind(map, model_table, others, "model", keys);
    AM_KEEP(am_node_list(list, "model.layers"));
    for (int64_t i = 0; rc == AM_OK && i < list->n; i++) {
        rc = read_layer(list->item[i], i, list->n, &out->net);
    }
    return rc;
}

/* ---- both ---- */

static int read_freeze(const am_node *node, am_net *net)
{
    int rc = node == NULL ? AM_OK : am_node_list(node, "model.freeze");
    for (int64_t i = 0; rc == AM_OK && node != NULL && i < node->n; i++) {
        const char *pattern = NULL;
        rc = am_node_text(node->item[i], "model.freeze", &pattern);
        AM_KEEP(am_net_freeze(net, pattern));
    }
    return rc;
}

static int read_lora(const am_node *map, am_lora_options *lora)
{
    static const char *const others[] = {"target_modules", NULL};
    if (map == NULL) {
        return AM_OK;
    }
    int rc = am_node_map(map, "model.lora");
    const am_node *list = rc == AM_OK ? am_node_find(map, "target_modules") : NULL;
    AM_KEEP(am_recipe_bind(map, lora_table, others, "model.lora", lora));
    AM_KEEP(list == NULL ? am_lora_target(lora, "*")
                         : am_node_list(list, "model.lora.target_modules"));
    if (rc == AM_OK && list != NULL && list->n < 1) {
        rc = am_node_fail(list, "model.lora.target_modules is empty: name at least one layer");
    }
    for (int64_t i = 0; rc == AM_OK && list != NULL && i < list->n; i++) {
        const char *pattern = NULL;
        rc = am_node_text(list->item[i], "model.lora.target_modules", &pattern);
        AM_KEEP(am_lora_target(lora, pattern));
    }
    return rc;
}

int am_model_read(const am_node *map, am_model *out)
{
    model_keys keys = {0};
    *out = (am_model){0};
    int rc = map == NULL ? AM_OK : am_node_map(map, "model");
    if (rc != AM_OK) {
        return rc;
    }
    rc = am_node_find(map, "layers") != NULL ? read_layers(map, out, &keys)
                                             : read_preset(map, out, &keys);
    AM_KEEP(read_freeze(am_node_find(map, "freeze"), &out->net));
    AM_KEEP(read_lora(am_node_find(map, "lora"), &out->lora));
    out->net.smoothing = keys.label_smoothing;
    out->net.recompute = keys.recompute;
    out->linearised = keys.linearised;
    return rc;
}

static const char *value_name(const am_net *net, int value)
{
    return value == AM_NET_SAMPLES ? "samples" : net->node[value - 1].name;
}

static void print_layers(const am_net *net, am_json *json)
{
    am_json_array(json, "layers");
    for (int i = 0; i < net->n; i++) {
        const am_net_node *node = &net->node[i];
        am_json_object(json, NULL);
        am_json_string(json, "layer", node->layer->name);
        am_json_string(json, "name", node->name);
        am_json_array(json, "from");
        for (int k = 0; k < node->layer->inputs; k++) {
            am_json_string(json, NULL, value_name(net, node->in[k]));
        }
        am_json_end_array(json);
        if (node->is_cut) {
            am_json_bool(json, "cut", true);
        }
        if (node->layer->attrs != NULL) {
            am_param_print_json(node->layer->attrs, node->attrs, json);
        }
        am_json_end_object(json);
    }
    am_json_end_array(json);
}

void am_model_print(const am_model *model, am_json *json)
{
    const am_net *net = &model->net;
    const model_keys keys = {.label_smoothing = net->smoothing,
                             .recompute = net->recompute,
                             .linearised = model->linearised};
    am_json_object(json, "model");
    if (model->preset == NULL) {
        print_layers(net, json);
    } else {
        am_json_string(json, "preset", model->preset->name);
        if (model->list.key != NULL) {
            am_json_array(json, model->list.key);
            for (int i = 0; i < model->list.n; i++) {
                am_json_int(json, NULL, model->list.value[i]);
            }
            am_json_end_array(json);
        }
        am_param_print_json(model->preset->params, model->options, json);
    }
    am_param_print_json(model_table, &keys, json);
    am_json_array(json, "freeze");
    for (int i = 0; i < net->n_freeze; i++) {
        am_json_string(json, NULL, net->freeze[i]);
    }
    am_json_end_array(json);
    if (model->lora.r > 0) {
        am_json_object(json, "lora");
        am_param_print_json(lora_table, &model->lora, json);
        am_json_array(json, "target_modules");
        for (int i = 0; i < model->lora.n_targets; i++) {
            am_json_string(json, NULL, model->lora.target[i]);
        }
        am_json_end_array(json);
        am_json_end_object(json);
    }
    am_json_end_object(json);
}

void am_model_free(am_model *model)
{
    am_net_free(&model->net);
    am_lora_options_free(&model->lora);
    *model = (am_model){0};
}
