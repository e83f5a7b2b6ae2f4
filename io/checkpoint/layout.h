/* Where the bytes of a checkpoint's tensors lie: a table of tensors, one extent for each, the files
 * that hold them and the string metadata. Made by rank 0, broadcast, used by every rank.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_LAYOUT_H
#define AM_IO_CHECKPOINT_LAYOUT_H

#include "io/checkpoint/checkpoint.h"

enum {
    AM_EXTENT_SWAPPED = 1, /* big-endian elements */
    AM_EXTENT_LIBRARY = 2  /* not contiguous: read through the format's library */
};

typedef struct am_extent {
    int32_t file;   /* index in am_layout.files */
    int32_t flags;  /* AM_EXTENT_* */
    int64_t offset; /* first byte in the file; with AM_EXTENT_LIBRARY the object's address */
} am_extent;

typedef struct am_layout_file {
    char *name;    /* owned; relative to the checkpoint's path, "" for the path itself */
    int64_t bytes; /* size of the whole file */
} am_layout_file;

typedef struct am_layout {
    am_tensor_table tensors;
    am_extent *extent; /* [tensors.n] owned, parallel to tensors.t */
    int64_t extent_capacity;
    am_meta meta;
    int64_t n_files;
    am_layout_file *files; /* [n_files] owned */
} am_layout;

/** Append a file. Returns its index, or an AM_E_NOMEM code (negative). */
int am_layout_add_file(am_layout *layout, const char *name, int64_t bytes);
/** Append a tensor with its extent. Errors: as am_tensor_table_add. */
int am_layout_add(am_layout *layout, const char *name, am_dtype dtype, int ndim,
                  const int64_t *shape, am_extent extent);
/** Sort tensors and extents by name. Errors: AM_E_DATA naming a duplicate; AM_E_NOMEM. */
int am_layout_finish(am_layout *layout);
/** Full path of file `f` of a checkpoint at `root`, in malloc'ed memory; NULL and AM_E_NOMEM. */
char *am_layout_path(const am_layout *layout, const char *root, int64_t f);
void am_layout_free(am_layout *layout);

/** Byte string of a layout for am_share_bytes_all, and back. Errors: AM_E_NOMEM. */
int am_layout_pack(const am_layout *layout, char **bytes, int64_t *n);
int am_layout_unpack(const char *bytes, int64_t n, am_layout *layout);

/** Bytes of one tensor on disk. */
int64_t am_tensor_bytes(const am_tensor *tensor);

#endif
