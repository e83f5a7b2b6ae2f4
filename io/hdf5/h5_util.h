/* HDF5 pieces that reading and writing share: error text, element types, names. Serial driver,
 * called from one thread only. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_HDF5_H5_UTIL_H
#define AM_IO_HDF5_H5_UTIL_H

#include <hdf5.h>
#include "mpi/tensor.h"

/* Root attribute that marks a file in our own form: names of tensors are escaped. */
#define AM_H5_MARK "allmerge.checkpoint"

/** No error printing, no filter plugins. Call before other HDF5 calls; cheap. */
void am_h5_begin(void);
enum { AM_H5_CACHE_BYTES = 64 << 20 }; /* of chunks of a dataset, for most readers */
/** Open a file for reading where it lies; negative on failure, with HDF5's error stack. */
hid_t am_h5_open_read(const char *path, size_t cache_bytes);
/** am_fail with the innermost text of HDF5's error stack appended. */
int am_h5_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** A new little-endian file type for a dtype (f16 and bf16 are float types of our own, BOOL is the
 * enumeration that h5py uses). Negative on failure; close with H5Tclose. */
hid_t am_h5_type_make(am_dtype dtype);
/** Dtype of a file type and whether it is big-endian; AM_DTYPE_COUNT if it is none of ours. */
am_dtype am_h5_type_of(hid_t type, bool *is_swapped);

/** Link name of a tensor: `/` and `%` as %2F and %25, and `.` alone as %2E; injective.
 * malloc'ed; NULL: AM_E_NOMEM in the slot. */
char *am_h5_escape(const char *name);
/** The reverse; malloc'ed. NULL with AM_E_NOMEM, or without a message if `name` is not an escaped
 * name. */
char *am_h5_unescape(const char *name);
/** Attribute name of a metadata key: `%` before an empty key, one that begins with `%`, and the
 * mark. malloc'ed; NULL: AM_E_NOMEM. */
char *am_h5_attribute_name(const char *key);

/** Open a copy of a file in memory (a memfd) for reading. Read errors are then ours to report, and
 * closing cannot fail: 1.10.8 keeps a file whose close failed in its tables and crashes at exit.
 * Returns the memory's descriptor, to be closed after *file, or AM_E_NOINPUT, AM_E_DATA (no regular
 * file; not an HDF5 file), AM_E_IO, AM_E_NOMEM. Local. */
int am_h5_memory_open(const char *path, hid_t *file);

#endif
