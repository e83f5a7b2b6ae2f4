/* Configuration, tokenizer and model card of a merged folder. SPDX-License-Identifier: BSD-3-Clause
 */
#include "jobs/merge/folder.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "jobs/merge/json_text.h"
#include "mpi/agree.h"
#include "mpi/error.h"
#include "mpi/log.h"

static const char config_name[] = "config.json";
static const int64_t largest_config = 16 << 20, largest_tokenizer = 256 << 20;

static int replace(char **text, const char *key, const char *value)
{
    char *changed = am_json_replace(*text, key, value);
    free(*text);
    *text = changed;
    return changed != NULL ? 0 : AM_E_NOMEM;
}

/* The input whose files the output has: the base_model, else the first one. */
static int donor_of(const am_merge_plan *plan)
{
    const am_merge_recipe *r = &plan->recipe;
    for (int m = 0; !r->has_base && r->base_path != NULL && m < r->n_models; m++) {
        if (strcmp(r->models[m].path, r->base_path) == 0) {
            return r->models[m].slot;
        }
    }
    return 0;
}

/* ---- config.json ---- */

/* The framework's name of the dtype that all float tensors have; NULL: there are several. */
static const char *common_dtype(const am_tensor_table *tensors)
{
    am_dtype dtype = AM_DTYPE_COUNT;
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_dtype own = tensors->t[i].dtype;
        if (am_dtype_is_float(own) && dtype != AM_DTYPE_COUNT && own != dtype) {
            return NULL;
        }
        dtype = am_dtype_is_float(own) ? own : dtype;
    }
    return dtype == AM_DTYPE_F64    ? "\"float64\""
           : dtype == AM_DTYPE_F32  ? "\"float32\""
           : dtype == AM_DTYPE_F16  ? "\"float16\""
           : dtype == AM_DTYPE_BF16 ? "\"bfloat16\""
                                    : NULL;
}

static int set_dtype(const am_merge_plan *plan, const json_t *config, char **text)
{
    static const char *const keys[] = {"torch_dtype", "dtype"};
    const char *dtype = common_dtype(&plan->match.output);
    int rc = 0;
    for (int i = 0; dtype != NULL && i < 2; i++) {
        const char *is = json_string_value(json_object_get(config, keys[i]));
        if (is != NULL && am_dtype_parse(is) != AM_DTYPE_COUNT) {
            AM_KEEP(replace(text, keys[i], dtype));
        }
    }
    return rc;
}

static int set_integer(const json_t *config, const char *key, int64_t value, char **text)
{
    char digits[32];
    if (!json_is_integer(json_object_get(config, key))) {
        return 0;
    }
    (void)snprintf(digits, sizeof digits, "%" PRId64, value);
    return replace(text, key, digits);
}

static int set_layers(const am_merge_plan *plan, const json_t *config, char **text)
{
    static const char *const keys[] = {"num_hidden_layers", "n_layer", "num_layers", "n_layers"};
    int rc = 0;
    if (plan->recipe.slices[0].node == NULL) {
        return 0;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        AM_KEEP(set_integer(config, keys[i], plan->match.layers, text));
    }
    if (json_is_array(json_object_get(config, "layer_types"))) {
        am_warn("%s: layer_types lists the layers of the first input, not those of the slices: "
                "put it right by hand",
                config_name);
    }
    return rc;
}

/* vocab_size counts the rows of the embedding. */
static int set_vocab(const am_merge_plan *plan, const json_t *config, char **text)
{
    const am_tensor_table *now = &plan->match.output,
                          *was = am_model_tensors(plan->inputs.model[donor_of(plan)]);
    const json_int_t size = json_integer_value(json_object_get(config, "vocab_size"));
    for (int64_t i = 0; i < now->n; i++) {
        const int64_t k = am_tensor_table_find(was, now->t[i].name);
        if (now->t[i].ndim == 2 && k >= 0 && was->t[k].ndim == 2 && was->t[k].shape[0] == size &&
            now->t[i].shape[0] != size &&
            am_layer_number(&plan->recipe.layers, now->t[i].name) < 0) {
            return set_integer(config, "vocab_size", now->t[i].shape[0], text);
        }
    }
    return 0;
}

static int adjust_config(const am_merge_plan *plan, am_companions *out)
{
    char *text = NULL;
    json_error_t error;
    int rc = am_companions_read(out, config_name, largest_config, &text);
    if (rc != 0 || text == NULL) {
        return rc;
    }
    json_t *config = json_loads(text, 0, &error);
    if (!json_is_object(config)) {
        rc = am_fail(AM_E_DATA, "%s/%s, line %d: %s", out->folder, config_name,
                     config == NULL ? error.line : 1, config == NULL ? error.text : "no object");
    }
    AM_KEEP(set_dtype(plan, config, &text));
    AM_KEEP(set_layers(plan, config, &text));
    AM_KEEP(set_vocab(plan, config, &text));
    AM_KEEP(am_companions_set(out, config_name, text));
    json_decref(config);
    free(text);
    return rc;
}

/* ---- the tokenizer ---- */

/* Files of a tokenizer that are text; others, as tokenizer.model, are not taken from a model that
 * is not the base. */
static const char *const tokenizer_texts[] = {"tokenizer.json",
                                              "tokenizer_config.json",
                                              "special_tokens_map.json",
                                              "added_tokens.json",
                                              "vocab.json",
                                              "vocab.txt",
                                              "merges.txt"};
enum { N_TOKENIZER_TEXTS = sizeof tokenizer_texts / sizeof *tokenizer_texts };

/* The tokenizer of another folder in place of the base's. */
static int take_tokenizer(const char *folder, am_companions *out)
{
    am_companions from;
    int rc = am_companions_find(folder, &from);
    am_companions_drop(out, "tokenizer.model");
    for (int i = 0; rc == 0 && i < N_TOKENIZER_TEXTS; i++) {
        char *text = NULL;
        am_companions_drop(out, tokenizer_texts[i]);
        rc = am_companions_read(&from, tokenizer_texts[i], largest_tokenizer, &text);
        if (rc == 0 && text != NULL) {
            rc = am_companions_set(out, tokenizer_texts[i], text);
        }
        free(text);
    }
    am_companions_free(&from);
    return rc;
}

static int set_tokenizer(const am_vocab_rows *rows, am_companions *out)
{
    int rc = rows->folder != NULL ? take_tokenizer(rows->folder, out) : 0;
    if (rc == 0 && rows->tokenizer != NULL) {
        am_companions_drop(out, "added_tokens.json"); /* all of them are in tokenizer.json */
        am_companions_drop(out, "tokenizer.model");
        rc = am_companions_set(out, "tokenizer.json", rows->tokenizer);
    }
    return rc;
}

/* ---- the model card ---- */

/* JSON text over several lines; it is YAML, too. */
static void print_json(FILE *out, const char *at)
{
    int depth = 0;
    for (; *at != '\0'; at++) {
        const bool opens = *at == '{' || *at == '[', closes = *at == '}' || *at == ']';
        depth -= closes;
        if (closes) {
            fprintf(out, "\n%*s", 2 * depth, "");
        }
        if (*at == '"') {
            const char *after = am_json_skip_string(at);
            fwrite(at, 1, (size_t)(after - at), out);
            at = after - 1;
            continue;
        }
        fputc(*at, out);
        depth += opens;
        if ((opens && at[1] != '}' && at[1] != ']') || *at == ',') {
            fprintf(out, "\n%*s", 2 * depth, "");
        } else if (opens) {
            fputc(*++at, out);
            depth--;
        } else if (*at == ':') {
            fputc(' ', out);
        }
    }
    fputc('\n', out);
}

static void print_card(FILE *out, const am_merge_plan *plan)
{
    const am_merge_recipe *r = &plan->recipe;
    fprintf(out,
            "---\ntags:\n- merge\n- allmerge\n---\n# Merged model\n\n"
            "Made by allmerge %s with the method `%s`: %s.\n\nSource of the method: %s.\n\n",
            AM_VERSION, r->method->name, r->method->summary, r->method->source);
    fputs("## Inputs\n", out);
    for (int s = 0; r->has_base && s < r->n_slices; s++) {
        if (s == 0 || strcmp(r->slices[s].base->text, r->slices[s - 1].base->text) != 0) {
            fprintf(out, "- base: `%s`\n", r->slices[s].base->text);
        }
    }
    for (int m = 0; m < r->n_models; m++) {
        fprintf(out, "- `%s`", r->models[m].path);
        if (r->slices[0].node != NULL) {
            fprintf(out, ", layers %" PRId64 " to %" PRId64, r->models[m].lo, r->models[m].hi - 1);
        }
        fputc('\n', out);
    }
    fputs("\n## Recipe\n```yaml\n", out);
    print_json(out, plan->resolved.text);
    fputs(
        "```\n\nDigests of all tensors and files are in `manifest.json`; `allmerge verify` checks "
        "them.\n",
        out);
}

static int make_card(const am_merge_plan *plan, am_companions *out)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    if (stream == NULL) {
        return am_fail(AM_E_NOMEM, "no memory for the model card");
    }
    print_card(stream, plan);
    int rc = ferror(stream) != 0 ? am_fail(AM_E_NOMEM, "no memory for the model card") : 0;
    if (fclose(stream) != 0 && rc == 0) {
        rc = am_fail(AM_E_NOMEM, "no memory for the model card");
    }
    AM_KEEP(am_companions_set(out, "README.md", text));
    free(text);
    return rc;
}

int am_merge_companions_all(MPI_Comm comm, const am_merge_plan *plan, am_companions *out)
{
    int rank = 0, rc = 0;
    *out = (am_companions){0};
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) {
        rc = am_companions_find(am_model_files(plan->inputs.model[donor_of(plan)])[0], out);
        AM_KEEP(adjust_config(plan, out));
        AM_KEEP(set_tokenizer(&plan->rows, out));
        AM_KEEP(make_card(plan, out));
    }
    AM_AGREE(comm);
cleanup:
    return rc;
}
