/* Reading the structure of HDF5 checkpoints, ours and foreign ones, as untrusted input.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_HDF5_H5_READ_H
#define AM_IO_HDF5_H5_READ_H

#include "io/checkpoint/format.h"

/* The members of am_format of the same names; io/checkpoint/format.h has the contracts. */
int am_h5_read_layout(const char *path, am_layout *out);
int am_h5_library_open(const char *file, void **handle);
int am_h5_library_read(void *handle, const am_extent *extent, const am_tensor *tensor, int64_t lo,
                       int64_t n, void *dst);
void am_h5_library_close(void *handle);

/** The layout of the datasets called names[0..n) alone, whatever else the file holds.
 * Errors: as am_h5_read_layout; AM_E_DATA naming one that is absent or lies in another file. */
int am_h5_read_named(const char *path, const char *const *names, int n, am_layout *out);
/** As am_h5_library_open, keeping nothing of what is read: for callers that keep it themselves. */
int am_h5_library_open_bare(const char *file, void **handle);

#endif
