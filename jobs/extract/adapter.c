/* See adapter.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/extract/adapter.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/adapter.h"
#include "io/checkpoint/module_values.h"
#include "io/file.h"
#include "jobs/merge/layers.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "solver/analysis/matrices.h"

const char *am_lora_fate_name(am_lora_fate fate)
{
    static const char *const names[] = {"unchanged", "factors", "embedding", "whole", "left out"};
    return names[fate];
}

/* ---- names ---- */

static bool ends_with(const char *name, const char *ending)
{
    const size_t n = strlen(name), m = strlen(ending);
    return n > m && strcmp(name + n - m, ending) == 0;
}

/* Length of the name of the module that a tensor belongs to. */
static int module_of(const char *name)
{
    const size_t n = strlen(name);
    return (int)(ends_with(name, ".weight") ? n - strlen(".weight")
                 : ends_with(name, ".bias") ? n - strlen(".bias")
                                            : n);
}

static int compile(const char *option, const char *text, regex_t *out)
{
    char reason[256];
    const int failed = regcomp(out, text, REG_EXTENDED | REG_NOSUB);
    if (failed == 0) {
        return 0;
    }
    (void)regerror(failed, out, reason, sizeof reason);
    return am_fail(AM_E_USAGE, "%s: cannot read the regular expression '%s': %s", option, text,
                   reason);
}

int am_lora_choice_check(const am_lora_choice *choice)
{
    enum { N = 4 };
    const char *const texts[N] = {choice->include, choice->exclude, choice->save_module,
                                  choice->embedding};
    static const char *const options[N] = {"--include-regex", "--exclude-regex", "--save-module",
                                           "--embedding-regex"};
    int rc = 0;
    for (int i = 0; rc == 0 && i < N; i++) {
        regex_t regex;
        if (texts[i] != NULL && (rc = compile(options[i], texts[i], &regex)) == 0) {
            regfree(&regex);
        }
    }
    return rc;
}

/* is_match [n]: whether the module of each tensor has the expression. */
static int match(const am_tensor_table *tensors, const char *text, bool fallback, bool *is_match)
{
    char module[AM_MAX_NAME + 1];
    regex_t regex;
    int rc = text != NULL ? compile("a regular expression", text, &regex) : 0;
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        const char *name = tensors->t[i].name;
        (void)snprintf(module, sizeof module, "%.*s", module_of(name), name);
        is_match[i] = text == NULL ? fallback : regexec(&regex, module, 0, NULL, 0) == 0;
    }
    if (rc == 0 && text != NULL) {
        regfree(&regex);
    }
    return rc;
}

/* ---- what becomes of a tensor ---- */

static am_lora_fate fate_of(const am_tensor *t, bool is_embedding, const am_lora_choice *choice)
{
    if (!am_is_matrix(t) || !ends_with(t->name, ".weight") ||
        (choice->fan_in_fan_out && t->ndim != 2)) {
        return choice->skips_others ? AM_FATE_LEFT_OUT : AM_FATE_WHOLE;
    }
    if (is_embedding) {
        return choice->embed_lora ? AM_FATE_EMBEDDING : AM_FATE_WHOLE;
    }
    return AM_FATE_FACTORS;
}

int am_lora_choose(const am_tensor_table *tensors, const double *square,
                   const am_lora_choice *choice, am_lora_fate *fate, bool *is_embedding)
{
    bool *included = am_new(tensors->n + 1, sizeof *included, "an adapter");
    bool *excluded = am_new(tensors->n + 1, sizeof *excluded, "an adapter");
    bool *saved = am_new(tensors->n + 1, sizeof *saved, "an adapter");
    int rc = included != NULL && excluded != NULL && saved != NULL ? 0 : AM_E_NOMEM;
    AM_KEEP(match(tensors, choice->include, true, included));
    AM_KEEP(match(tensors, choice->exclude, false, excluded));
    AM_KEEP(match(tensors, choice->save_module, false, saved));
    AM_KEEP(match(tensors, choice->embedding, false, is_embedding));
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        is_embedding[i] =
            t->ndim == 2 && ends_with(t->name, ".weight") &&
            (is_embedding[i] || (choice->embedding == NULL && am_layer_is_before(t->name)));
        fate[i] = !am_dtype_is_float(t->dtype) || square[i] == 0 ? AM_FATE_UNCHANGED
                  : saved[i]                                     ? AM_FATE_WHOLE
                  : excluded[i] || !included[i]                  ? AM_FATE_LEFT_OUT
                                                : fate_of(t, is_embedding[i], choice);
    }
    free(included);
    free(excluded);
    free(saved);
    return rc;
}

/* ---- the table ---- */

static const am_tensor_table *tensors_of(const am_lora_file *f)
{
    return f->factors->inputs->source[0].tensors;
}

static bool has_factors(const am_lora_file *f, int64_t i)
{
    return (f->fate[i] == AM_FATE_FACTORS || f->fate[i] == AM_FATE_EMBEDDING) &&
           f->factors->of[i].rank > 0;
}

/* Where a bias of a module with factors stands: behind the layer that PEFT wraps. */
static bool is_wrapped(const am_lora_file *f, const char *name)
{
    char weight[AM_MAX_NAME + 16];
    if (!ends_with(name, ".bias")) {
        return false;
    }
    (void)snprintf(weight, sizeof weight, "%.*s.weight", module_of(name), name);
    const int64_t at = am_tensor_table_find(tensors_of(f), weight);
    return at >= 0 && has_factors(f, at);
}

enum { FIRST, SECOND }; /* A or the whole tensor; B */

/* Name (malloc'ed) of a part of tensor i. */
static char *name_of(const am_lora_file *f, int64_t i, int part)
{
    const char *name = tensors_of(f)->t[i].name;
    const int module = module_of(name);
    if (f->fate[i] == AM_FATE_WHOLE) {
        return is_wrapped(f, name) ? am_text("base_model.model.%.*s.base_layer.bias", module, name)
                                   : am_text("base_model.model.%s", name);
    }
    return am_text(f->fate[i] == AM_FATE_EMBEDDING ? "base_model.model.%.*s.lora_embedding_%c"
                                                   : "base_model.model.%.*s.lora_%c.weight",
                   module, name, part == FIRST ? 'A' : 'B');
}

static int add_whole(am_lora_file *f, int64_t i)
{
    const am_merge_input *model = &f->factors->inputs->input[1];
    const am_tensor *t = &model->source->tensors->t[model->tensor[i]];
    char *name = name_of(f, i, FIRST);
    const int rc = name != NULL ? am_tensor_table_add(&f->table, name, t->dtype, t->ndim, t->shape)
                                : AM_E_NOMEM;
    free(name);
    return rc;
}

/* A [rank, in ...] and B [out, rank], of convolutions [out, rank, 1, 1]; transposed ones are
 * [in, out]. */
static int add_factors(am_lora_file *f, int64_t i)
{
    const am_tensor *t = &tensors_of(f)->t[i];
    const am_factor *g = &f->factors->of[i];
    int64_t a[AM_MAX_DIMS], b[AM_MAX_DIMS];
    char *names[] = {name_of(f, i, FIRST), name_of(f, i, SECOND)};
    for (int d = 0; d < t->ndim; d++) {
        a[d] = t->shape[d];
        b[d] = 1;
    }
    a[0] = g->rank;
    a[1] = g->is_transposed ? t->shape[0] : t->shape[1];
    b[0] = g->is_transposed ? t->shape[1] : t->shape[0];
    b[1] = g->rank;
    int rc = names[FIRST] != NULL && names[SECOND] != NULL ? 0 : AM_E_NOMEM;
    AM_KEEP(am_tensor_table_add(&f->table, names[FIRST], f->factors->dtype, t->ndim, a));
    AM_KEEP(am_tensor_table_add(&f->table, names[SECOND], f->factors->dtype, t->ndim, b));
    free(names[FIRST]);
    free(names[SECOND]);
    return rc;
}

static int find(am_lora_file *f, int64_t i, int part, int64_t *at)
{
    char *name = name_of(f, i, part);
    *at = name != NULL ? am_tensor_table_find(&f->table, name) : -1;
    free(name);
    return name != NULL ? 0 : AM_E_NOMEM;
}

static int make_table(am_lora_file *f)
{
    const int64_t n = tensors_of(f)->n;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        if (f->fate[i] == AM_FATE_WHOLE) {
            rc = add_whole(f, i);
        } else if (has_factors(f, i)) {
            rc = add_factors(f, i);
        }
    }
    AM_KEEP(am_tensor_table_finish(&f->table));
    f->a = am_new(n + 1, sizeof *f->a, "an adapter");
    f->b = am_new(n + 1, sizeof *f->b, "an adapter");
    AM_KEEP(f->a != NULL && f->b != NULL ? 0 : AM_E_NOMEM);
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        f->a[i] = f->b[i] = -1;
        if (f->fate[i] == AM_FATE_WHOLE || has_factors(f, i)) {
            rc = find(f, i, FIRST, &f->a[i]);
        }
        if (has_factors(f, i)) {
            AM_KEEP(find(f, i, SECOND, &f->b[i]));
        }
    }
    return rc;
}

/* ---- the configuration ---- */

/* Longer names first: PEFT takes the first key that a name ends with. */
static int by_length(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    const size_t n = strlen(x), m = strlen(y);
    return n != m ? (n < m ? 1 : -1) : strcmp(x, y);
}

/* Keys of patterns are regular expressions. */
static int check_key(const char *name)
{
    return am_module_key_is_plain(name)
               ? 0
               : am_fail(AM_E_DATA,
                         "tensor '%s': an adapter of several ranks cannot name it: rank_pattern "
                         "reads names as regular expressions; leave it out with --exclude-regex",
                         name);
}

static int write_ranks(const am_lora_file *f, am_json *json)
{
    const am_tensor_table *tensors = tensors_of(f);
    const char **name = am_new(tensors->n + 1, sizeof *name, "an adapter");
    int64_t n = 0;
    int rc = 0;
    if (name == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        if (has_factors(f, i)) {
            name[n++] = tensors->t[i].name;
            rc = check_key(tensors->t[i].name);
        }
    }
    qsort(name, (size_t)n, sizeof *name, by_length);
    am_json_object(json, NULL);
    for (int64_t k = 0; k < n; k++) {
        char module[AM_MAX_NAME + 1];
        (void)snprintf(module, sizeof module, "%.*s", module_of(name[k]), name[k]);
        am_json_int(json, module, f->factors->of[am_tensor_table_find(tensors, name[k])].rank);
    }
    am_json_end_object(json);
    free(name);
    AM_KEEP(am_json_finish(json));
    return rc;
}

/* Whether a whole tensor brings its module into the list; of a weight and a bias the weight does.
 */
static bool names_module(const am_lora_file *f, int64_t i)
{
    const char *name = tensors_of(f)->t[i].name;
    char weight[AM_MAX_NAME + 16];
    if (f->fate[i] != AM_FATE_WHOLE || ends_with(name, ".weight")) {
        return f->fate[i] == AM_FATE_WHOLE;
    }
    (void)snprintf(weight, sizeof weight, "%.*s.weight", module_of(name), name);
    const int64_t at = am_tensor_table_find(tensors_of(f), weight);
    return ends_with(name, ".bias") && !is_wrapped(f, name) &&
           (at < 0 || f->fate[at] != AM_FATE_WHOLE);
}

/* Modules with whole tensors; parameters without a module are found by their names. */
static int write_saved(const am_lora_file *f, am_json *json)
{
    am_json_array(json, NULL);
    for (int64_t i = 0; i < tensors_of(f)->n; i++) {
        if (names_module(f, i)) {
            const char *name = tensors_of(f)->t[i].name;
            char module[AM_MAX_NAME + 1];
            (void)snprintf(module, sizeof module, "%.*s", module_of(name), name);
            am_json_string(json, NULL, module);
        }
    }
    am_json_end_array(json);
    return am_json_finish(json);
}

static int make_config(const am_lora_choice *choice, am_lora_file *f)
{
    const am_tensor_table *tensors = tensors_of(f);
    am_json ranks = {0}, saved = {0};
    bool is_even = true, has_bias = false;
    int rc = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        is_even = is_even && (!has_factors(f, i) || f->factors->of[i].rank == f->r);
        has_bias = has_bias || (f->fate[i] == AM_FATE_WHOLE && is_wrapped(f, tensors->t[i].name));
    }
    AM_KEEP(is_even ? 0 : write_ranks(f, &ranks));
    AM_KEEP(write_saved(f, &saved));
    const am_adapter_config config = {.r = f->r,
                                      .alpha = (double)f->r,
                                      .fan_in_fan_out = choice->fan_in_fan_out,
                                      .bias = has_bias ? "all" : NULL,
                                      .modules_to_save = saved.text,
                                      .ranks = is_even ? NULL : ranks.text};
    am_adapter_config_begin(&config, &f->config);
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        if (has_factors(f, i)) {
            am_adapter_config_add(tensors->t[i].name, &f->config);
        }
    }
    AM_KEEP(am_adapter_config_end(&f->config));
    am_json_free(&ranks);
    am_json_free(&saved);
    return rc;
}

int am_lora_file_plan(const am_lora_choice *choice, am_lora_file *file)
{
    for (int64_t i = 0; i < tensors_of(file)->n; i++) {
        const int64_t rank = has_factors(file, i) ? file->factors->of[i].rank : 0;
        file->r = rank > file->r ? rank : file->r;
    }
    int rc = file->r > 0 ? 0
                         : am_fail(AM_E_DATA,
                                   "%s: no matrix that differs from %s and may have factors: "
                                   "there is no adapter to write",
                                   file->factors->inputs->path[1], file->factors->inputs->path[0]);
    AM_KEEP(make_table(file));
    AM_KEEP(make_config(choice, file));
    return rc;
}

void am_lora_file_free(am_lora_file *file)
{
    am_tensor_table_free(&file->table);
    am_json_free(&file->config);
    free(file->a);
    free(file->b);
}
