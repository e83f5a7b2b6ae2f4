/* config.json as options of a preset. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/interop/config.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"

enum { LARGEST_CONFIG = 16 << 20, SCALAR = 64 };

/* A scalar as text; "..." for lists and objects, which equal nothing that is accepted. */
static void scalar_text(const json_t *value, char text[SCALAR])
{
    if (json_is_integer(value)) {
        snprintf(text, SCALAR, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_real(value)) {
        snprintf(text, SCALAR, "%.17g", json_real_value(value));
    } else if (json_is_string(value)) {
        snprintf(text, SCALAR, "%s", json_string_value(value));
    } else {
        snprintf(text, SCALAR, "%s",
                 json_is_true(value)    ? "true"
                 : json_is_false(value) ? "false"
                 : json_is_null(value)  ? "null"
                                        : "...");
    }
}

/* Is `text` one of a|b|c? */
static bool is_among(const char *choices, const char *text)
{
    const size_t length = strlen(text);
    for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, text, length) == 0 && (at[length] == '|' || at[length] == '\0')) {
            return true;
        }
    }
    return false;
}

static int check_settings(const char *path, const json_t *root, const am_hf_setting *settings)
{
    char text[SCALAR];
    for (int i = 0; settings[i].key != NULL; i++) {
        const json_t *value = json_object_get(root, settings[i].key);
        scalar_text(value, text);
        if (value != NULL && !json_is_null(value) && !is_among(settings[i].accepted, text)) {
            return am_fail(AM_E_DATA,
                           "%s: %s is %s, which allmerge does not compute (it computes %s); it "
                           "would give other results, so the model is not read",
                           path, settings[i].key, text, settings[i].accepted);
        }
    }
    return 0;
}

static int find_architecture(const char *path, const json_t *root, int *index)
{
    const char *type = json_string_value(json_object_get(root, "model_type"));
    char known[256] = "";
    for (int i = 0; am_hf_architectures[i].model_type != NULL; i++) {
        if (type != NULL && strcmp(type, am_hf_architectures[i].model_type) == 0) {
            *index = i;
            return 0;
        }
        const size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i > 0 ? ", " : "",
                 am_hf_architectures[i].model_type);
    }
    return am_fail(AM_E_DATA, "%s: model_type is %s; known are %s", path,
                   type != NULL ? type : "missing", known);
}

static int read_numbers(const char *path, const json_t *root, const am_hf_number *numbers,
                        am_hf_config *out)
{
    char text[SCALAR];
    size_t at = 0;
    for (int i = 0; numbers[i].theirs != NULL; i++) {
        const json_t *value = json_object_get(root, numbers[i].theirs);
        const bool is_given = value != NULL && !json_is_null(value);
        scalar_text(value, text);
        if (is_given && (!json_is_number(value) || json_number_value(value) <= 0)) {
            return am_fail(AM_E_DATA, "%s: %s must be a number above 0, not %s", path,
                           numbers[i].theirs, text);
        }
        at += (size_t)snprintf(out->options + at, sizeof out->options - at, "%s%s=%s",
                               at > 0 ? " " : "", numbers[i].ours,
                               is_given ? text : numbers[i].fallback);
        AM_ASSERT(at < sizeof out->options);
    }
    return 0;
}

/* Size of a head: a key of its own in some models; ours is features / heads. */
static int check_head_size(const char *path, const json_t *root)
{
    const json_t *own = json_object_get(root, "head_dim");
    const json_int_t features = json_integer_value(json_object_get(root, "hidden_size"));
    const json_int_t heads = json_integer_value(json_object_get(root, "num_attention_heads"));
    if (own == NULL || json_is_null(own) ||
        (json_is_integer(own) && json_integer_value(own) * heads == features)) {
        return 0;
    }
    return am_fail(AM_E_DATA,
                   "%s: head_dim is not hidden_size / num_attention_heads, which allmerge does not "
                   "compute",
                   path);
}

static int read_config(const char *path, const char *text, int64_t n, am_hf_config *out)
{
    static const am_hf_setting common[] = {{"quantization_config", "null"}, {0}};
    json_error_t error;
    json_t *root = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    int rc = json_is_object(root) ? 0
                                  : am_fail(AM_E_DATA, "%s is not a JSON object (line %d: %s)",
                                            path, error.line, error.text);
    AM_KEEP(find_architecture(path, root, &out->architecture));
    if (rc == 0) {
        const am_hf_architecture *a = &am_hf_architectures[out->architecture];
        const json_t *tied = json_object_get(root, "tie_word_embeddings");
        const bool is_text = a->positions.theirs != NULL;
        const json_t *most = is_text ? json_object_get(root, a->positions.theirs) : NULL;
        out->is_tied = is_text && (json_is_boolean(tied) ? json_is_true(tied) : a->is_tied);
        out->positions = json_is_integer(most) ? json_integer_value(most)
                         : is_text             ? strtoll(a->positions.fallback, NULL, 10)
                                               : 0;
        rc = check_settings(path, root, common);
        AM_KEEP(check_settings(path, root, a->settings));
        AM_KEEP(check_head_size(path, root));
        AM_KEEP(read_numbers(path, root, a->numbers, out));
    }
    json_decref(root);
    return rc;
}

int am_hf_config_read_all(MPI_Comm comm, const char *folder, am_hf_config *out)
{
    int rc = 0, rank;
    int64_t n = 0;
    char *text = NULL, *path = am_text("%s/config.json", folder);
    *out = (am_hf_config){0};
    MPI_Comm_rank(comm, &rank);
    rc = path != NULL ? 0 : AM_E_NOMEM;
    if (rank == 0) {
        AM_KEEP(am_file_slurp(path, LARGEST_CONFIG, &text, &n));
        AM_KEEP(read_config(path, text, n, out));
    }
    free(text);
    free(path);
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, out, (int64_t)sizeof *out));
cleanup:
    return rc;
}
