/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/adapter.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "io/checkpoint/module_values.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/arena.h"

enum { LARGEST_RANK = 1 << 16 };

static const char prefix[] = "base_model.model.";

/* The configuration, as far as it changes numbers. */
typedef struct config {
    json_t *root;
    const char *path; /* borrowed, for messages */
    double rank, alpha;
    bool is_rs, fan_in_fan_out;
    am_module_values ranks, alphas; /* owned */
} config;

/* ---- adapter_config.json ---- */

static int read_bool(const config *c, const char *key, bool *out)
{
    const json_t *value = json_object_get(c->root, key);
    if (value != NULL && !json_is_boolean(value) && !json_is_null(value)) {
        return am_fail(AM_E_DATA, "%s: %s is not true or false", c->path, key);
    }
    *out = json_is_true(value);
    return 0;
}

/* Keys whose presence means another arithmetic than W + scale * B A. */
static int refuse_variants(const config *c)
{
    static const char *const refused[] = {
        "use_dora",        "use_qalora",        "lora_bias", "alora_invocation_tokens",
        "megatron_config", "layer_replication", NULL};
    for (int i = 0; refused[i] != NULL; i++) {
        const json_t *value = json_object_get(c->root, refused[i]);
        if (value != NULL && !json_is_null(value) && !json_is_false(value)) {
            return am_fail(AM_E_DATA,
                           "%s: %s is set, which is not supported; merge the adapter "
                           "into its model first",
                           c->path, refused[i]);
        }
    }
    return 0;
}

static int read_config(const char *path, const char *text, int64_t n, config *c)
{
    json_error_t error;
    int rc = 0;
    c->path = path;
    c->root = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(c->root)) {
        return am_fail(AM_E_DATA, "%s is not a JSON object (line %d: %s)", path, error.line,
                       error.text);
    }
    const char *type = json_string_value(json_object_get(c->root, "peft_type"));
    const json_t *rank = json_object_get(c->root, "r");
    const json_t *alpha = json_object_get(c->root, "lora_alpha");
    if (type == NULL || strcmp(type, "LORA") != 0) {
        return am_fail(AM_E_DATA, "%s: peft_type is %s; only LORA is supported", path,
                       type != NULL ? type : "missing");
    }
    if (!json_is_integer(rank) || json_integer_value(rank) < 1 ||
        json_integer_value(rank) > LARGEST_RANK) {
        return am_fail(AM_E_DATA, "%s: r must be a whole number of 1 to %d", path, LARGEST_RANK);
    }
    if (!json_is_number(alpha) || !isfinite(json_number_value(alpha))) {
        return am_fail(AM_E_DATA, "%s: lora_alpha must be a number", path);
    }
    c->rank = json_number_value(rank);
    c->alpha = json_number_value(alpha);
    AM_KEEP(am_module_values_read(path, "rank_pattern", json_object_get(c->root, "rank_pattern"),
                                  &c->ranks));
    AM_KEEP(am_module_values_read(path, "alpha_pattern", json_object_get(c->root, "alpha_pattern"),
                                  &c->alphas));
    AM_KEEP(read_bool(c, "use_rslora", &c->is_rs));
    AM_KEEP(read_bool(c, "fan_in_fan_out", &c->fan_in_fan_out));
    AM_KEEP(refuse_variants(c));
    return rc;
}

/* ---- the tensors ---- */

typedef enum kind { FACTOR_A, FACTOR_B, EMBEDDING_A, EMBEDDING_B, WHOLE } kind;

static const struct {
    kind kind;
    const char *ending;
} endings[] = {{FACTOR_A, ".lora_A.weight"},
               {FACTOR_B, ".lora_B.weight"},
               {EMBEDDING_A, ".lora_embedding_A"},
               {EMBEDDING_B, ".lora_embedding_B"}};

/* Take "modules_to_save." and "modules_to_save.default." out of a name, or "base_layer.", behind
 * which PEFT has the bias of a module with factors. */
static void drop_wrapper(char *name)
{
    static const char *const wrappers[] = {"modules_to_save.default.", "modules_to_save.",
                                           "base_layer."};
    for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++) {
        char *at = strstr(name, wrappers[i]);
        if (at != NULL && (at == name || at[-1] == '.')) {
            const char *rest = at + strlen(wrappers[i]);
            memmove(at, rest, strlen(rest) + 1);
            return;
        }
    }
}

/* Which tensor of the model one of the adapter's belongs to (malloc'ed), and as what. */
static int parse_name(const char *path, const char *name, kind *what, char **target)
{
    const size_t skip = sizeof prefix - 1;
    if (strncmp(name, prefix, skip) != 0) {
        return am_fail(AM_E_DATA, "%s: tensor '%s' does not begin with '%s' as PEFT writes it",
                       path, name, prefix);
    }
    const char *stem = name + skip;
    const size_t length = strlen(stem);
    *what = WHOLE;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t tail = strlen(endings[i].ending);
        if (length > tail && strcmp(stem + length - tail, endings[i].ending) == 0) {
            *what = endings[i].kind;
            *target = am_text("%.*s.weight", (int)(length - tail), stem);
            return *target != NULL ? 0 : AM_E_NOMEM;
        }
    }
    if (strstr(stem, "lora_") != NULL) {
        return am_fail(AM_E_DATA,
                       "%s: tensor '%s' is not part of a plain LoRA adapter; merge "
                       "the adapter into its model first",
                       path, name);
    }
    *target = am_text("%s", stem);
    if (*target == NULL) {
        return AM_E_NOMEM;
    }
    drop_wrapper(*target);
    return 0;
}

static void set_matrix(const am_tensor *w, am_adapter_part *part)
{
    part->rows = w->ndim > 0 ? w->shape[0] : 1;
    part->cols = 1;
    for (int d = 1; d < w->ndim; d++) {
        part->cols *= w->shape[d];
    }
}

/* Put tensor i of the adapter where it belongs. */
static int place(am_adapter *adapter, const config *c, const am_tensor_table *model,
                 const char *model_path, int64_t i)
{
    const char *path = am_ckpt_path(adapter->ckpt);
    const char *name = am_ckpt_tensors(adapter->ckpt)->t[i].name;
    char *target = NULL;
    kind what = WHOLE;
    int rc = parse_name(path, name, &what, &target);
    const int64_t at = rc == 0 ? am_tensor_table_find(model, target) : -1;
    if (rc == 0 && at < 0) {
        rc = am_fail(AM_E_DATA, "%s: tensor '%s': %s has no tensor '%s' to apply it to", path, name,
                     model_path, target);
    }
    if (rc == 0) {
        am_adapter_part *part = &adapter->part[at];
        int64_t *slot = what == FACTOR_B || what == EMBEDDING_B ? &part->b : &part->a;
        if (*slot >= 0 || (what == WHOLE && part->b >= 0) || part->is_whole) {
            rc = am_fail(AM_E_DATA, "%s: tensor '%s' changes '%s', which another one changes too",
                         path, name, target);
        }
        *slot = i;
        part->is_whole = what == WHOLE;
        part->is_transposed = what == EMBEDDING_A || what == EMBEDDING_B || c->fan_in_fan_out;
        set_matrix(&model->t[at], part);
    }
    free(target);
    return rc;
}

static bool is_same_shape(const am_tensor *a, const am_tensor *b)
{
    bool same = a->ndim == b->ndim;
    for (int d = 0; same && d < a->ndim; d++) {
        same = a->shape[d] == b->shape[d];
    }
    return same;
}

/* Shapes of a pair and its scale. */
static int check_pair(const am_adapter *adapter, const config *c, const am_tensor *w,
                      am_adapter_part *part)
{
    const char *path = am_ckpt_path(adapter->ckpt);
    const am_tensor *tensors = am_ckpt_tensors(adapter->ckpt)->t;
    if (part->a < 0 || part->b < 0) {
        return am_fail(AM_E_DATA, "%s: tensor '%s' has no partner (lora_A needs lora_B)", path,
                       tensors[part->a < 0 ? part->b : part->a].name);
    }
    const am_tensor *a = &tensors[part->a], *b = &tensors[part->b];
    const int64_t in = part->is_transposed ? part->rows : part->cols;
    const int64_t out = part->is_transposed ? part->cols : part->rows;
    part->rank = a->ndim > 0 ? a->shape[0] : 0;
    if (part->rank < 1 || part->rank > LARGEST_RANK) {
        return am_fail(AM_E_DATA, "%s: tensor '%s' is %s: its rank must be 1 to %d", path, a->name,
                       am_tensor_describe(a), LARGEST_RANK);
    }
    if (!am_dtype_is_float(w->dtype) || !am_dtype_is_float(a->dtype) ||
        !am_dtype_is_float(b->dtype) || w->ndim < 2 || (part->is_transposed && w->ndim != 2) ||
        b->ndim < 2 || b->shape[0] != out || b->shape[1] != part->rank ||
        b->numel != out * part->rank || a->numel != part->rank * in) {
        return am_fail(AM_E_DATA, "%s: '%s' %s and '%s' %s do not fit the model's '%s' %s%s", path,
                       a->name, am_tensor_describe(a), b->name, am_tensor_describe(b), w->name,
                       am_tensor_describe(w), part->is_transposed ? ", transposed" : "");
    }
    char *module = am_text("%.*s", (int)(strlen(w->name) - strlen(".weight")), w->name);
    if (module == NULL) {
        return AM_E_NOMEM;
    }
    const double rank = am_module_value_of(&c->ranks, module, c->rank);
    const double alpha = am_module_value_of(&c->alphas, module, c->alpha);
    free(module);
    part->scale = alpha / (c->is_rs ? sqrt(rank) : rank);
    return rank == (double)part->rank ? 0
                                      : am_fail(AM_E_DATA, "%s: r is %g, but tensor '%s' is %s",
                                                c->path, rank, a->name, am_tensor_describe(a));
}

static int check_part(const am_adapter *adapter, const config *c, const am_tensor *w,
                      am_adapter_part *part)
{
    if (part->a < 0 && part->b < 0) {
        return 0;
    }
    if (!part->is_whole) {
        return check_pair(adapter, c, w, part);
    }
    const am_tensor *own = &am_ckpt_tensors(adapter->ckpt)->t[part->a];
    if (is_same_shape(own, w) && am_dtype_is_float(own->dtype) && am_dtype_is_float(w->dtype)) {
        return 0;
    }
    return am_fail(AM_E_DATA, "%s: tensor '%s' is %s, but '%s' is %s in the model",
                   am_ckpt_path(adapter->ckpt), own->name, am_tensor_describe(own), w->name,
                   am_tensor_describe(w));
}

static int match(am_adapter *adapter, const config *c, const am_tensor_table *model,
                 const char *model_path)
{
    const int64_t n = am_ckpt_tensors(adapter->ckpt)->n;
    int rc = 0;
    adapter->part = am_new(model->n + 1, sizeof *adapter->part, "an adapter");
    if (adapter->part == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t t = 0; t < model->n; t++) {
        adapter->part[t].a = adapter->part[t].b = -1;
    }
    for (int64_t i = 0; i < n; i++) {
        AM_KEEP(place(adapter, c, model, model_path, i));
    }
    for (int64_t t = 0; t < model->n; t++) {
        AM_KEEP(check_part(adapter, c, &model->t[t], &adapter->part[t]));
    }
    return rc == 0 && n == 0
               ? am_fail(AM_E_DATA, "%s holds no tensors", am_ckpt_path(adapter->ckpt))
               : rc;
}

/* ---- open and close ---- */

/* On rank 0: the text of the configuration; says what kind of adapter folder this is not. */
static int slurp_config(const char *folder, const char *config_path, const char *factors_path,
                        char **text, int64_t *n)
{
    struct stat st;
    if (stat(folder, &st) != 0) {
        return am_fail(AM_E_NOINPUT, "%s: no such adapter folder", folder);
    }
    if (stat(config_path, &st) != 0) {
        return am_fail(AM_E_NOINPUT, "%s: an adapter needs %s", folder, AM_ADAPTER_CONFIG);
    }
    if (stat(factors_path, &st) != 0) {
        return am_fail(AM_E_NOINPUT, "%s: an adapter needs %s (other forms are not read)", folder,
                       AM_ADAPTER_FACTORS);
    }
    return am_file_slurp(config_path, AM_ADAPTER_CONFIG_MOST, text, n);
}

int am_adapter_open_all(MPI_Comm comm, const char *folder, const am_tensor_table *model,
                        const char *model_path, am_adapter **out)
{
    int rank = 0, rc = 0;
    int64_t n = 0;
    char *text = NULL;
    config c = {0};
    am_adapter *adapter = am_new(1, sizeof *adapter, "an adapter");
    char *config_path = am_text("%s/%s", folder, AM_ADAPTER_CONFIG);
    char *factors_path = am_text("%s/%s", folder, AM_ADAPTER_FACTORS);
    AM_KEEP(adapter != NULL && config_path != NULL && factors_path != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    MPI_Comm_rank(comm, &rank);
    const int made = rank == 0 ? slurp_config(folder, config_path, factors_path, &text, &n) : 0;
    AM_TRY(am_share_bytes_all(comm, 0, made, &text, &n));
    rc = read_config(config_path, text, n, &c);
    AM_AGREE(comm);
    AM_TRY(am_ckpt_open_all(comm, factors_path, &adapter->ckpt));
    adapter->alpha = c.alpha;
    adapter->is_rs = c.is_rs;
    rc = match(adapter, &c, model, model_path);
    AM_AGREE(comm);
    *out = adapter;
    adapter = NULL;
cleanup:
    am_module_values_free(&c.ranks);
    am_module_values_free(&c.alphas);
    json_decref(c.root);
    free(text);
    free(config_path);
    free(factors_path);
    am_adapter_close(&adapter);
    return rc;
}

void am_adapter_close(am_adapter **adapter)
{
    if (*adapter != NULL) {
        am_ckpt_close(&(*adapter)->ckpt);
        free((*adapter)->part);
        free(*adapter);
        *adapter = NULL;
    }
}
