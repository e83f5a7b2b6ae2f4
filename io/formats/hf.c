/* Hugging Face folder: model.safetensors, or shards model-0000i-of-0000N.safetensors with
 * model.safetensors.index.json, which is written last. SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "io/file.h"
#include "io/checkpoint/format.h"
#include "io/formats/safetensors.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/jsonw.h"

static const char index_name[] = "model.safetensors.index.json";
static const char single_name[] = "model.safetensors";
static const int64_t largest_index = 1 << 30;
static const int64_t default_shard_bytes = 5000000000;

static bool has(const char *folder, const char *name)
{
    struct stat st;
    char *path = am_text("%s/%s", folder, name);
    bool found = path != NULL && stat(path, &st) == 0;
    free(path);
    return found;
}

static bool recognises(const am_probe *probe)
{
    return probe->is_folder && (has(probe->path, index_name) || has(probe->path, single_name));
}

/* ---- reading ---- */

static int read_shard(const char *folder, const char *name, bool is_only, am_layout *out)
{
    struct stat st;
    char *path = am_text("%s/%s", folder, name);
    if (path == NULL) {
        return AM_E_NOMEM;
    }
    int rc = 0;
    if (stat(path, &st) != 0) {
        rc = am_fail(AM_E_NOINPUT, "%s is missing, but the index names it", path);
        goto cleanup;
    }
    int file = am_layout_add_file(out, name, (int64_t)st.st_size);
    AM_TRY(file < 0 ? file : 0);
    AM_TRY(am_st_read(path, file, is_only, out));
cleanup:
    free(path);
    return rc;
}

static int64_t find_file(const am_layout *layout, const char *name)
{
    for (int64_t f = 0; f < layout->n_files; f++) {
        if (strcmp(layout->files[f].name, name) == 0) {
            return f;
        }
    }
    return -1;
}

/* Read every shard that the map names, in the map's order. */
static int read_shards(const char *folder, json_t *map, am_layout *out)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (name == NULL || name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL) {
            return am_fail(AM_E_DATA, "%s/%s: tensor %s is not mapped to a file of the folder",
                           folder, index_name, tensor);
        }
        int rc = find_file(out, name) >= 0 ? 0 : read_shard(folder, name, false, out);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* The map and the shards name the same tensors in the same files. */
static int check_map(const char *folder, json_t *map, const am_layout *layout)
{
    for (int64_t i = 0; i < layout->tensors.n; i++) {
        const char *name = layout->tensors.t[i].name;
        const char *file = json_string_value(json_object_get(map, name));
        const char *found = layout->files[layout->extent[i].file].name;
        if (file == NULL || strcmp(file, found) != 0) {
            return am_fail(AM_E_DATA, "%s/%s maps tensor %s to %s, but it is in %s", folder,
                           index_name, name, file != NULL ? file : "nothing", found);
        }
    }
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        if (am_tensor_table_find(&layout->tensors, tensor) < 0) {
            return am_fail(AM_E_DATA, "%s/%s: tensor %s is not in %s", folder, index_name, tensor,
                           json_string_value(value));
        }
    }
    return 0;
}

static int read_index(const char *folder, am_layout *out)
{
    int rc = 0;
    char *text = NULL;
    int64_t n = 0;
    json_t *root = NULL;
    json_error_t error;
    char *path = am_text("%s/%s", folder, index_name);
    if (path == NULL) {
        return AM_E_NOMEM;
    }
    AM_TRY(am_file_slurp(path, largest_index, &text, &n));
    root = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        rc = am_fail(AM_E_DATA, "%s, line %d: %s", path, error.line, error.text);
        goto cleanup;
    }
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        rc = am_fail(AM_E_DATA, "%s has no weight_map", path);
        goto cleanup;
    }
    AM_TRY(read_shards(folder, map, out));
    AM_TRY(am_layout_finish(out));
    AM_TRY(check_map(folder, map, out));
cleanup:
    json_decref(root);
    free(text);
    free(path);
    return rc;
}

static int read_layout(const char *path, am_layout *out)
{
    if (has(path, index_name)) {
        return read_index(path, out);
    }
    int rc = read_shard(path, single_name, true, out);
    return rc != 0 ? rc : am_layout_finish(out);
}

/* ---- writing ---- */

/* Shard of each tensor, in name order; a tensor above the limit has a shard of its own. */
static int64_t plan_shards(const am_tensor_table *tensors, int64_t limit, int64_t *shard)
{
    int64_t count = 1, bytes = 0;
    for (int64_t i = 0; i < tensors->n; i++) {
        int64_t add = am_tensor_bytes(&tensors->t[i]);
        if (bytes > 0 && add > limit - bytes) {
            count++;
            bytes = 0;
        }
        shard[i] = count - 1;
        bytes += add;
    }
    return count;
}

static int lay_out_shard(const char *folder, const am_tensor_table *tensors, const int64_t *pick,
                         int64_t n, int64_t index, int64_t count, const am_meta *meta,
                         am_layout *out)
{
    char name[64];
    if (count == 1) {
        snprintf(name, sizeof name, "%s", single_name);
    } else {
        snprintf(name, sizeof name, "model-%05lld-of-%05lld.safetensors", (long long)index + 1,
                 (long long)count);
    }
    int file = am_layout_add_file(out, name, 0);
    if (file < 0) {
        return file;
    }
    char *path = am_layout_path(out, folder, file);
    if (path == NULL) {
        return AM_E_NOMEM;
    }
    int rc = am_st_lay_out(path, tensors, pick, n, meta, file, out);
    free(path);
    return rc;
}

static int lay_out(const char *path, const am_tensor_table *tensors, const am_ckpt_options *options,
                   am_layout *out)
{
    int rc = 0;
    int64_t limit = options->shard_bytes > 0 ? options->shard_bytes : default_shard_bytes;
    int64_t *shard = am_new(tensors->n + 1, sizeof *shard, "a table of shards");
    int64_t *pick = am_new(tensors->n + 1, sizeof *pick, "a table of shards");
    if (shard == NULL || pick == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    if (mkdir(path, 0777) != 0) {
        int code = errno == ENOSPC || errno == EDQUOT || errno == EIO ? AM_E_IO : AM_E_CREATE;
        rc = am_fail_errno(code, errno, "cannot create the folder %s", path);
        goto cleanup;
    }
    int64_t count = plan_shards(tensors, limit, shard);
    if (count > 99999) {
        rc = am_fail(AM_E_CREATE, "%s would have %lld shards: choose a larger shard size", path,
                     (long long)count);
        goto cleanup;
    }
    for (int64_t i = 0; i < tensors->n; i++) {
        pick[i] = i;
    }
    for (int64_t s = 0, lo = 0; s < count; s++) {
        int64_t hi = lo;
        while (hi < tensors->n && shard[hi] == s) {
            hi++;
        }
        AM_TRY(lay_out_shard(path, tensors, pick + lo, hi - lo, s, count, options->meta, out));
        lo = hi;
    }
    AM_TRY(am_layout_finish(out));
cleanup:
    free(shard);
    free(pick);
    return rc;
}

/* The index, once all data is on disk. */
static int finish(const char *path, const am_layout *layout)
{
    if (layout->n_files == 1) {
        return 0;
    }
    int rc = 0;
    am_json j = {0};
    char *name = am_text("%s/%s", path, index_name);
    am_json_object(&j, NULL);
    am_json_object(&j, "metadata");
    am_json_int(&j, "total_size", am_tensor_table_bytes(&layout->tensors));
    am_json_end_object(&j);
    am_json_object(&j, "weight_map");
    for (int64_t i = 0; i < layout->tensors.n; i++) {
        am_json_string(&j, layout->tensors.t[i].name, layout->files[layout->extent[i].file].name);
    }
    am_json_end_object(&j);
    am_json_end_object(&j);
    rc = name == NULL ? AM_E_NOMEM : am_json_finish(&j);
    AM_KEEP(am_file_dump(name, j.text, (int64_t)j.length));
    am_json_free(&j);
    free(name);
    return rc;
}

const am_format am_format_hf = {
    .name = "hf",
    .help = "folder in Hugging Face layout: safetensors shards and an index",
    .is_folder = true,
    .recognises = recognises,
    .read_layout = read_layout,
    .lay_out = lay_out,
    .finish = finish,
};
