/* Data that only the HDF5 library can read: chunked, compressed, compact.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include "io/file.h"
#include "io/hdf5/h5_chunk.h"
#include "io/hdf5/h5_read.h"
#include "io/hdf5/h5_util.h"
#include "mpi/arena.h"
#include "mpi/error.h"

typedef struct library {
    char *path;
    hid_t file, dset; /* dset: the one read last, -1 if none */
    int64_t address;
    am_h5_chunks chunks; /* of dset */
} library;

static int open_library(const char *file, size_t cache_bytes, void **handle)
{
    library *l = am_new(1, sizeof *l, file);
    if (l == NULL) {
        return AM_E_NOMEM;
    }
    l->path = am_text("%s", file);
    l->dset = -1;
    l->file = l->path != NULL ? am_h5_open_read(file, cache_bytes) : -1;
    if (l->file < 0) {
        am_h5_library_close(l);
        return am_h5_fail(AM_E_IO, "cannot open %s with the HDF5 library", file);
    }
    *handle = l;
    return 0;
}

int am_h5_library_open(const char *file, void **handle)
{
    return open_library(file, AM_H5_CACHE_BYTES, handle);
}

int am_h5_library_open_bare(const char *file, void **handle)
{
    return open_library(file, 0, handle);
}

static void close_dataset(library *l)
{
    if (l->dset >= 0) {
        H5Oclose(l->dset);
        l->dset = -1;
    }
    am_h5_chunks_free(&l->chunks);
}

void am_h5_library_close(void *handle)
{
    library *l = handle;
    close_dataset(l);
    if (l->file >= 0) {
        H5Fclose(l->file);
    }
    free(l->path);
    free(l);
}

/* The largest box of rows that begins at element `at` of a row-major array and holds at most `n`
 * elements: one hyperslab. Returns its number of elements. */
static int64_t next_box(const am_tensor *t, int64_t at, int64_t n, hsize_t *start, hsize_t *count)
{
    int64_t stride = 1, rest = at, box = 1;
    int d = t->ndim - 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        start[i] = (hsize_t)(rest % t->shape[i]);
        rest /= t->shape[i];
        count[i] = 1;
    }
    /* Go outwards while whole inner dimensions begin here and fit. */
    for (; d > 0 && start[d] == 0 && stride * t->shape[d] <= n; d--) {
        count[d] = (hsize_t)t->shape[d];
        stride *= t->shape[d];
    }
    int64_t rows = n / stride, left = t->shape[d] - (int64_t)start[d];
    count[d] = (hsize_t)(rows < left ? rows : left);
    box = stride * (int64_t)count[d];
    return box;
}

static int read_boxes(library *l, const am_tensor *t, hid_t type, hid_t space, int64_t lo,
                      int64_t n, char *dst)
{
    int64_t element = am_dtype_bytes(t->dtype);
    for (int64_t done = 0; done < n;) {
        hsize_t start[AM_MAX_DIMS], count[AM_MAX_DIMS];
        int64_t box = t->ndim > 0 ? next_box(t, lo + done, n - done, start, count) : 1;
        int rc =
            t->ndim > 0 ? am_h5_chunks_check(&l->chunks, l->dset, l->path, t, start, count) : 0;
        if (rc != 0) {
            return rc;
        }
        hsize_t flat = (hsize_t)box;
        hid_t memory = H5Screate_simple(1, &flat, NULL);
        herr_t ok = memory >= 0 ? 0 : -1;
        if (ok >= 0 && t->ndim > 0) {
            ok = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
        }
        if (ok >= 0) { /* memory type == file type: HDF5 converts nothing */
            ok = H5Dread(l->dset, type, memory, space, H5P_DEFAULT, dst + done * element);
        }
        if (memory >= 0) {
            H5Sclose(memory);
        }
        if (ok < 0) {
            return am_h5_fail(AM_E_DATA, "%s: cannot read tensor %s", l->path, t->name);
        }
        done += box;
    }
    return 0;
}

static int open_dataset(library *l, const am_extent *extent, const am_tensor *tensor)
{
    if (l->dset >= 0 && l->address == extent->offset) {
        return 0;
    }
    close_dataset(l);
    l->address = extent->offset;
    l->dset = H5Oopen_by_addr(l->file, (haddr_t)extent->offset);
    if (l->dset < 0) {
        return am_h5_fail(AM_E_DATA, "%s: cannot open tensor %s", l->path, tensor->name);
    }
    int rc = am_h5_chunks_open(l->dset, l->path, tensor, &l->chunks);
    if (rc != 0) {
        close_dataset(l);
    }
    return rc;
}

int am_h5_library_read(void *handle, const am_extent *extent, const am_tensor *tensor, int64_t lo,
                       int64_t n, void *dst)
{
    library *l = handle;
    if (n == 0) {
        return 0;
    }
    int rc = open_dataset(l, extent, tensor);
    if (rc != 0) {
        return rc;
    }
    hid_t type = H5Dget_type(l->dset), space = H5Dget_space(l->dset);
    if (type < 0 || space < 0) {
        rc = am_h5_fail(AM_E_DATA, "%s: cannot read tensor %s", l->path, tensor->name);
    } else {
        rc = read_boxes(l, tensor, type, space, lo, n, dst);
    }
    if (type >= 0) {
        H5Tclose(type);
    }
    if (space >= 0) {
        H5Sclose(space);
    }
    return rc;
}
