/* A checkpoint format is one file in io/formats that exports `const am_format am_format_<file>`.
 * It turns a path into an am_layout (reading) and an am_layout into laid-out, reserved files
 * (writing). It never moves tensor data: extents are read and written by every rank, in
 * io/checkpoint/checkpoint.c and io/commit/sink.c. All functions are local, called on rank 0
 * unless noted. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_FORMAT_H
#define AM_IO_CHECKPOINT_FORMAT_H

#include <stddef.h>
#include "io/checkpoint/layout.h"

/* What is known of an existing path before a format is chosen. */
typedef struct am_probe {
    const char *path;
    bool is_folder;
    int64_t bytes;           /* size of a file */
    unsigned char head[16];  /* first bytes of a file, zero-filled */
    bool has_hdf5_signature; /* at 0, 512, 1024 or 2048 */
} am_probe;

typedef struct am_format {
    const char *name;           /* "safetensors" */
    const char *help;           /* one line */
    const char *const *endings; /* output names it takes, NULL-terminated: ".safetensors" */
    bool is_folder;             /* its checkpoints are folders; takes every other output name */

    /* True if the content at a path looks like this format. */
    bool (*recognises)(const am_probe *probe);
    /* Read and check all metadata (RELIABILITY: order of checks); no tensor data.
     * Errors: AM_E_DATA naming file and rule; AM_E_IO; AM_E_NOMEM. */
    int (*read_layout)(const char *path, am_layout *out);
    /* Create the files of an output at `path` (a temporary name that does not exist), write
     * all metadata, reserve the space and sync. *out gets table, extents and files.
     * Errors: AM_E_CREATE, AM_E_IO, AM_E_NOMEM; the caller removes what was made. */
    int (*lay_out)(const char *path, const am_tensor_table *tensors, const am_ckpt_options *options,
                   am_layout *out);
    /* Last metadata, after all data is on disk (an index file). May be NULL. */
    int (*finish)(const char *path, const am_layout *layout);

    /* For extents with AM_EXTENT_LIBRARY; any rank. NULL if the format makes none.
     * read: elements [lo, lo+n) of the object in file byte order into dst. */
    int (*library_open)(const char *file, void **handle);
    int (*library_read)(void *handle, const am_extent *extent, const am_tensor *tensor, int64_t lo,
                        int64_t n, void *dst);
    void (*library_close)(void *handle);
} am_format;

extern const am_format *const am_format_table[]; /* NULL-terminated */

/** Format of an existing checkpoint, by content. NULL with AM_E_NOINPUT, AM_E_DATA or AM_E_IO in
 * *rc and a message. Local. */
const am_format *am_format_of_input(const char *path, int *rc);
/** Format of an output, by name. Never NULL. */
const am_format *am_format_of_output(const char *path);
const am_format *am_format_find(const char *name); /* NULL if unknown */

/* Metadata keys that begin so belong to allmerge; formats keep them out of what users see. */
#define AM_META_RESERVED "allmerge."
/* Exact JSON header of a safetensors file that is not in canonical form, padding included: kept
 * so that safetensors -> HDF5 -> safetensors gives the same bytes. */
#define AM_META_ST_HEADER "allmerge.safetensors.header"

#endif
