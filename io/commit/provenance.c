/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/commit/provenance.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "io/commit/digest.h"
#include "io/file.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { SAMPLE = 65536 };

/* Name, size, and both ends of a file into the digest. */
static int sample_file(const char *path, const char *name, XXH3_state_t *state, unsigned char *room,
                       am_input_facts *facts)
{
    int rc = 0;
    int64_t bytes = 0;
    struct stat st;
    int fd = am_file_open(path, &bytes);
    if (fd < 0) {
        return fd;
    }
    if (fstat(fd, &st) != 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot stat %s", path);
        goto cleanup;
    }
    const int64_t n = bytes < SAMPLE ? bytes : SAMPLE;
    const int64_t when = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    XXH3_64bits_update(state, name, strlen(name) + 1);
    XXH3_64bits_update(state, &bytes, sizeof bytes);
    AM_TRY(am_file_read(fd, path, room, n, 0));
    XXH3_64bits_update(state, room, (size_t)n);
    AM_TRY(am_file_read(fd, path, room, n, bytes - n));
    XXH3_64bits_update(state, room, (size_t)n);
    facts->bytes += bytes;
    facts->modified_ns = when > facts->modified_ns ? when : facts->modified_ns;
cleanup:
    close(fd);
    return rc;
}

/* All regular files of a folder, in the order of their names. */
static int sample_folder(const char *path, XXH3_state_t *state, unsigned char *room,
                         am_input_facts *facts)
{
    struct dirent **entries = NULL;
    int rc = 0;
    const int n = scandir(path, &entries, NULL, alphasort);
    if (n < 0) {
        return am_fail_errno(AM_E_IO, errno, "cannot look into %s", path);
    }
    for (int i = 0; i < n; i++) {
        struct stat st;
        char *file = rc == 0 ? am_text("%s/%s", path, entries[i]->d_name) : NULL;
        AM_KEEP(file == NULL ? AM_E_NOMEM : 0);
        if (rc == 0 && stat(file, &st) == 0 && S_ISREG(st.st_mode) && access(file, R_OK) == 0) {
            rc = sample_file(file, entries[i]->d_name, state, room, facts);
        }
        free(file);
        free(entries[i]);
    }
    free(entries);
    return rc;
}

int am_input_facts_read(const char *path, am_input_facts *out)
{
    int rc = 0;
    struct stat st;
    am_manifest own = {0};
    *out = (am_input_facts){0};
    XXH3_state_t *state = XXH3_createState();
    unsigned char *room = am_new(SAMPLE, 1, "a sample of an input");
    if (state == NULL || room == NULL) {
        rc = am_fail(AM_E_NOMEM, "out of memory for a checksum");
        goto cleanup;
    }
    XXH3_64bits_reset(state);
    if (stat(path, &st) != 0) {
        rc = am_fail_errno(errno == ENOENT ? AM_E_NOINPUT : AM_E_IO, errno, "cannot stat %s", path);
        goto cleanup;
    }
    const bool is_folder = S_ISDIR(st.st_mode);
    AM_TRY(is_folder ? sample_folder(path, state, room, out)
                     : sample_file(path, "", state, room, out));
    out->sample = XXH3_64bits_digest(state);
    out->has_content = am_manifest_read(path, is_folder, &own) == 0;
    if (out->has_content) {
        out->content = own.content;
    } else {
        am_error_clear(); /* an input without a manifest is fine */
    }
cleanup:
    am_manifest_free(&own);
    XXH3_freeState(state);
    free(room);
    return rc;
}

void am_input_facts_write(const am_input_facts *facts, const char *path, am_json *j)
{
    am_json_string(j, "path", path);
    am_json_int(j, "bytes", facts->bytes);
    am_json_string(j, "sample_xxh3", am_hex_of(facts->sample).text);
    if (facts->has_content) {
        am_json_string(j, "content_xxh3", am_hex_of(facts->content).text);
    }
}

static int write_input(am_json *j, const char *path)
{
    am_input_facts facts;
    int rc = am_input_facts_read(path, &facts);
    if (rc == AM_E_NOINPUT) { /* gone since it was read */
        am_error_clear();
        rc = 0;
    }
    am_json_object(j, NULL);
    am_input_facts_write(&facts, path, j);
    am_json_end_object(j);
    return rc;
}

int am_provenance_find(const char *format, const am_ckpt_options *options, am_manifest_head *out)
{
    *out = (am_manifest_head){.format = format};
    if (strcmp(format, "hf") == 0) {
        out->shard_bytes = options->shard_bytes;
    }
    int rc = 0;
    am_json j = {0};
    am_json_array(&j, NULL);
    for (int64_t i = 0; rc == 0 && options->inputs != NULL && options->inputs[i] != NULL; i++) {
        rc = write_input(&j, options->inputs[i]);
    }
    am_json_end_array(&j);
    AM_TRY(rc);
    AM_TRY(am_json_finish(&j));
    out->inputs_json = am_text("%s", j.text);
    if (options->recipe != NULL) {
        uint64_t digest = am_digest_bytes(options->recipe, (int64_t)strlen(options->recipe));
        out->recipe_digest = am_text("%s", am_hex_of(digest).text);
    }
    if (options->grid != NULL) {
        out->grid_json = am_text("%s", options->grid);
    }
    if (out->inputs_json == NULL || (options->recipe != NULL && out->recipe_digest == NULL) ||
        (options->grid != NULL && out->grid_json == NULL)) {
        rc = AM_E_NOMEM;
    }
cleanup:
    am_json_free(&j);
    if (rc != 0) {
        am_manifest_head_free(out);
    }
    return rc;
}
