/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/commit/manifest.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/file.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/jsonw.h"
#include "mpi/partition.h"

char *am_manifest_path(const char *path, bool is_folder)
{
    char *clean = am_clean_path(path);
    if (clean == NULL) {
        return NULL;
    }
    char *manifest =
        is_folder ? am_text("%s/manifest.json", clean) : am_text("%s.manifest.json", clean);
    free(clean);
    return manifest;
}

enum { MANIFEST_VERSION = 1 };
static const int64_t largest_manifest = 1 << 30;
static const char self_key[] = ",\"manifest_xxh3\":\"";

static bool parse_hex(const char *text, uint64_t *out)
{
    if (text == NULL || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) {
        return false;
    }
    *out = strtoull(text, NULL, 16);
    return true;
}

/* ---- writing ---- */

void am_manifest_head_free(am_manifest_head *head)
{
    free(head->recipe_digest);
    free(head->inputs_json);
    free(head->grid_json);
    *head = (am_manifest_head){0};
}

/* Digest of everything a user would call the content: names, dtypes, shapes, values, metadata. */
static int content_digest(const am_tensor_table *tensors, const uint64_t *digest, uint64_t meta,
                          uint64_t *out)
{
    am_json j = {0};
    am_json_array(&j, NULL);
    for (int64_t i = 0; i < tensors->n; i++) {
        am_json_string(&j, NULL, tensors->t[i].name);
        am_json_string(&j, NULL, am_tensor_describe(&tensors->t[i]));
        am_json_string(&j, NULL, am_hex_of(digest[i]).text);
    }
    am_json_string(&j, NULL, am_hex_of(meta).text);
    am_json_end_array(&j);
    int rc = am_json_finish(&j);
    if (rc == 0) {
        *out = am_digest_bytes(j.text, (int64_t)j.length);
    }
    am_json_free(&j);
    return rc;
}

static void write_tensors(am_json *j, const am_tensor_table *tensors, const uint64_t *digest)
{
    am_json_array(j, "tensors");
    for (int64_t i = 0; i < tensors->n; i++) {
        const am_tensor *t = &tensors->t[i];
        am_json_object(j, NULL);
        am_json_string(j, "name", t->name);
        am_json_string(j, "dtype", am_dtype_name(t->dtype));
        am_json_array(j, "shape");
        for (int d = 0; d < t->ndim; d++) {
            am_json_int(j, NULL, t->shape[d]);
        }
        am_json_end_array(j);
        am_json_string(j, "xxh3", am_hex_of(digest[i]).text);
        am_json_end_object(j);
    }
    am_json_end_array(j);
}

static void write_files(am_json *j, const am_companions *files)
{
    am_json_array(j, "files");
    for (int64_t i = 0; i < files->n; i++) {
        am_json_object(j, NULL);
        am_json_string(j, "name", files->item[i].name);
        am_json_int(j, "bytes", files->item[i].n);
        am_json_string(j, "xxh3", am_hex_of(files->item[i].digest).text);
        am_json_end_object(j);
    }
    am_json_end_array(j);
}

int am_manifest_write(const am_manifest_head *head, const am_tensor_table *tensors,
                      const am_meta *meta, const am_digests *digests,
                      const am_companions *companions, char **text, int64_t *n)
{
    int rc = 0;
    am_json j = {0};
    uint64_t meta_digest, content;
    uint64_t *digest = am_new(tensors->n + 1, sizeof *digest, "the manifest");
    if (digest == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < tensors->n; i++) {
        digest[i] = am_digests_tensor(digests, i);
    }
    AM_TRY(am_digest_meta(meta, &meta_digest));
    AM_TRY(content_digest(tensors, digest, meta_digest, &content));
    am_json_object(&j, NULL);
    am_json_string(&j, "allmerge", AM_VERSION);
    am_json_int(&j, "manifest", MANIFEST_VERSION);
    am_json_string(&j, "format", head->format);
    am_json_string(&j, "recipe_xxh3", head->recipe_digest);
    am_json_raw(&j, "inputs", head->inputs_json);
    if (head->grid_json != NULL) {
        am_json_raw(&j, "grid", head->grid_json);
    }
    if (head->shard_bytes > 0) {
        am_json_int(&j, "shard_bytes", head->shard_bytes);
    }
    am_json_int(&j, "block_elements", AM_BLOCK);
    am_json_string(&j, "metadata_xxh3", am_hex_of(meta_digest).text);
    am_json_string(&j, "content_xxh3", am_hex_of(content).text);
    if (companions != NULL && companions->n > 0) {
        write_files(&j, companions);
    }
    write_tensors(&j, tensors, digest);
    am_json_end_object(&j);
    AM_TRY(am_json_finish(&j));
    int64_t body = (int64_t)j.length - 1; /* without the last brace */
    uint64_t self = am_digest_bytes(j.text, body);
    *text = am_text("%.*s%s%s\"}\n", (int)body, j.text, self_key, am_hex_of(self).text);
    if (*text == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    *n = (int64_t)strlen(*text);
cleanup:
    am_json_free(&j);
    free(digest);
    return rc;
}

/* ---- reading ---- */

static int damaged(const char *path, const char *what)
{
    return am_fail(AM_E_DATA, "%s is damaged: %s", path, what);
}

static int check_self(const char *path, const char *text, int64_t n)
{
    int64_t tail = (int64_t)sizeof self_key - 1 + 16 + 3; /* key, digest, `"}` and newline */
    const char *at = text + n - tail;
    uint64_t digest;
    char digits[17] = {0};
    if (n < tail || memcmp(at, self_key, sizeof self_key - 1) != 0) {
        return damaged(path, "it does not end in its own digest");
    }
    memcpy(digits, at + sizeof self_key - 1, 16);
    if (!parse_hex(digits, &digest) || digest != am_digest_bytes(text, n - tail)) {
        return damaged(path, "its own digest does not match");
    }
    return 0;
}

static int read_tensor(const char *path, const json_t *entry, am_manifest *out)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    int64_t dims[AM_MAX_DIMS];
    uint64_t digest;
    if (name == NULL || dtype == NULL || !json_is_array(shape) ||
        json_array_size(shape) > AM_MAX_DIMS || am_dtype_parse(dtype) == AM_DTYPE_COUNT ||
        !parse_hex(json_string_value(json_object_get(entry, "xxh3")), &digest)) {
        return damaged(path, "a tensor's entry is not sound");
    }
    for (size_t d = 0; d < json_array_size(shape); d++) {
        dims[d] = (int64_t)json_integer_value(json_array_get(shape, d));
    }
    out->digest[out->tensors.n] = digest; /* entries are in name order */
    return am_tensor_table_add(&out->tensors, name, am_dtype_parse(dtype),
                               (int)json_array_size(shape), dims);
}

static int read_tensors(const char *path, const json_t *root, am_manifest *out)
{
    const json_t *list = json_object_get(root, "tensors");
    if (!json_is_array(list) ||
        !parse_hex(json_string_value(json_object_get(root, "metadata_xxh3")), &out->meta) ||
        !parse_hex(json_string_value(json_object_get(root, "content_xxh3")), &out->content)) {
        return damaged(path, "members are missing");
    }
    out->digest = am_new((int64_t)json_array_size(list) + 1, sizeof *out->digest, path);
    if (out->digest == NULL) {
        return AM_E_NOMEM;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        int rc = read_tensor(path, json_array_get(list, i), out);
        if (rc != 0) {
            return rc;
        }
        if (i > 0 && strcmp(out->tensors.t[i - 1].name, out->tensors.t[i].name) >= 0) {
            return damaged(path, "its tensors are not in order");
        }
    }
    return am_tensor_table_finish(&out->tensors);
}

/* Files beside the tensors; older manifests have none. */
static int read_files(const char *path, const json_t *root, am_manifest *out)
{
    const json_t *list = json_object_get(root, "files");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        const json_t *bytes = json_object_get(entry, "bytes");
        uint64_t digest;
        if (name == NULL || !am_companion_is_name(name) || strchr(name, '/') != NULL ||
            !json_is_integer(bytes) ||
            !parse_hex(json_string_value(json_object_get(entry, "xxh3")), &digest)) {
            return damaged(path, "a file's entry is not sound");
        }
        int rc = am_companions_add(&out->files, name, (int64_t)json_integer_value(bytes), digest);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int load(const char *name, json_t **root)
{
    int rc = 0;
    char *text = NULL;
    int64_t n = 0;
    json_error_t error;
    AM_TRY(am_file_slurp(name, largest_manifest, &text, &n));
    AM_TRY(check_self(name, text, n));
    *root = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (*root == NULL) {
        rc = damaged(name, error.text);
        goto cleanup;
    }
    if (json_integer_value(json_object_get(*root, "manifest")) != MANIFEST_VERSION) {
        rc = am_fail(AM_E_DATA, "%s is of another version of allmerge", name);
    }
cleanup:
    free(text);
    return rc;
}

static bool member_is(const json_t *root, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(root, key));
    return value != NULL && text != NULL && strcmp(text, value) == 0;
}

bool am_manifest_is_of(const char *path, bool is_folder, const am_manifest_head *head)
{
    json_t *root = NULL, *inputs = NULL;
    bool is_same = false;
    char *name = am_manifest_path(path, is_folder);
    if (name != NULL && access(name, F_OK) == 0 && load(name, &root) == 0) {
        inputs = json_loads(head->inputs_json, 0, NULL);
        is_same = member_is(root, "allmerge", AM_VERSION) &&
                  member_is(root, "format", head->format) &&
                  member_is(root, "recipe_xxh3", head->recipe_digest) &&
                  json_integer_value(json_object_get(root, "shard_bytes")) == head->shard_bytes &&
                  inputs != NULL && json_equal(inputs, json_object_get(root, "inputs"));
    }
    am_error_clear();
    json_decref(inputs);
    json_decref(root);
    free(name);
    return is_same;
}

int am_manifest_read(const char *path, bool is_folder, am_manifest *out)
{
    int rc = 0;
    json_t *root = NULL;
    struct stat st;
    *out = (am_manifest){0};
    char *name = am_manifest_path(path, is_folder);
    if (name == NULL) {
        return AM_E_NOMEM;
    }
    if (stat(name, &st) != 0 && errno == ENOENT) {
        rc = AM_E_NOINPUT; /* ordinary: no message */
        goto cleanup;
    }
    AM_TRY(load(name, &root));
    AM_TRY(read_tensors(name, root, out));
    AM_TRY(read_files(name, root, out));
cleanup:
    json_decref(root);
    free(name);
    if (rc != 0) {
        am_manifest_free(out);
    }
    return rc;
}

void am_manifest_free(am_manifest *manifest)
{
    am_tensor_table_free(&manifest->tensors);
    am_companions_free(&manifest->files);
    free(manifest->digest);
    *manifest = (am_manifest){0};
}
