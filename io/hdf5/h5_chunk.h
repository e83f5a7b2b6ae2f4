/* Guard for chunked HDF5 data: HDF5 1.10 believes that a chunk unpacks to the size that the shape
 * of the chunk says and reads past its end if it does not. Each chunk is looked at before the
 * library may read it. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_HDF5_H5_CHUNK_H
#define AM_IO_HDF5_H5_CHUNK_H

#include <hdf5.h>
#include "mpi/tensor.h"

enum { AM_H5_MAX_FILTERS = 8 };

typedef struct am_h5_chunks {
    int ndim;
    hsize_t extent[AM_MAX_DIMS], grid[AM_MAX_DIMS]; /* of a chunk; chunks along each dimension */
    int64_t bytes;                                  /* of an unpacked chunk; 0: not chunked */
    int n_filters;
    H5Z_filter_t filter[AM_H5_MAX_FILTERS]; /* in the order of writing */
    unsigned char *seen;                    /* owned bitmap of checked chunks */
} am_h5_chunks;

/** Learn the chunking of an open dataset. Errors: AM_E_DATA; AM_E_NOMEM. */
int am_h5_chunks_open(hid_t dset, const char *path, const am_tensor *tensor, am_h5_chunks *out);
void am_h5_chunks_free(am_h5_chunks *chunks);
/** Check every chunk that the box [start, start+count) touches, each once.
 * Errors: AM_E_DATA naming file and tensor; AM_E_NOMEM. */
int am_h5_chunks_check(am_h5_chunks *chunks, hid_t dset, const char *path, const am_tensor *tensor,
                       const hsize_t *start, const hsize_t *count);

#endif
