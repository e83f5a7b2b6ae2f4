/* Choice of a format: by content for inputs, by name for outputs.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/format.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/file.h"
#include "mpi/error.h"

static const unsigned char hdf5_signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

static int probe_file(const char *path, am_probe *probe)
{
    int fd = am_file_open(path, &probe->bytes);
    if (fd < 0) {
        return fd;
    }
    int64_t n = (int64_t)sizeof probe->head;
    int rc = am_file_read(fd, path, probe->head, probe->bytes < n ? probe->bytes : n, 0);
    for (int64_t at = 0; rc == 0 && at <= 2048; at = at == 0 ? 512 : 2 * at) {
        unsigned char bytes[8];
        if (at + 8 <= probe->bytes) {
            rc = am_file_read(fd, path, bytes, 8, at);
            probe->has_hdf5_signature |= memcmp(bytes, hdf5_signature, 8) == 0;
        }
    }
    close(fd);
    return rc;
}

const am_format *am_format_of_input(const char *path, int *rc)
{
    am_probe probe = {.path = path};
    struct stat st;
    if (stat(path, &st) != 0) {
        int code = errno == ENOENT || errno == ENOTDIR ? AM_E_NOINPUT : AM_E_IO;
        *rc = am_fail_errno(code, errno, "cannot open %s", path);
        return NULL;
    }
    probe.is_folder = S_ISDIR(st.st_mode);
    *rc = probe.is_folder ? 0 : probe_file(path, &probe);
    if (*rc != 0) {
        return NULL;
    }
    for (const am_format *const *f = am_format_table; *f != NULL; f++) {
        if ((*f)->recognises(&probe)) {
            return *f;
        }
    }
    *rc = am_fail(AM_E_DATA, "%s is not a checkpoint: %s", path,
                  probe.is_folder
                      ? "the folder has neither model.safetensors nor model.safetensors.index.json"
                      : "neither HDF5 nor safetensors (truncated?)");
    return NULL;
}

static bool ends_in(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && strcasecmp(path + n - m, ending) == 0;
}

const am_format *am_format_of_output(const char *path)
{
    const am_format *folder = NULL;
    for (const am_format *const *f = am_format_table; *f != NULL; f++) {
        for (const char *const *e = (*f)->endings; e != NULL && *e != NULL; e++) {
            if (ends_in(path, *e)) {
                return *f;
            }
        }
        folder = (*f)->is_folder ? *f : folder;
    }
    AM_ASSERT(folder != NULL);
    return folder;
}

const am_format *am_format_find(const char *name)
{
    for (const am_format *const *f = am_format_table; *f != NULL; f++) {
        if (strcmp((*f)->name, name) == 0) {
            return *f;
        }
    }
    return NULL;
}
