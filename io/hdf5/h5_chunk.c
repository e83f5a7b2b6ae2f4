/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/hdf5/h5_chunk.h"

#include <stdlib.h>
#include <zlib.h>
#include "io/hdf5/h5_util.h"
#include "mpi/arena.h"
#include "mpi/error.h"

enum { CHECKSUM_BYTES = 4, WINDOW_BYTES = 1 << 16 };

static int bad_chunk(const char *path, const am_tensor *t, const char *what)
{
    return am_fail(AM_E_DATA, "%s: tensor %s: %s", path, t->name, what);
}

static int read_pipeline(hid_t dcpl, const char *path, const am_tensor *t, am_h5_chunks *c)
{
    c->n_filters = H5Pget_nfilters(dcpl);
    if (c->n_filters < 0 || c->n_filters > AM_H5_MAX_FILTERS) {
        return bad_chunk(path, t, "has too many filters");
    }
    for (int i = 0; i < c->n_filters; i++) {
        unsigned flags, config;
        size_t values = 0;
        c->filter[i] = H5Pget_filter2(dcpl, (unsigned)i, &flags, &values, NULL, 0, NULL, &config);
    }
    return 0;
}

static int read_grid(hid_t dcpl, const char *path, const am_tensor *t, am_h5_chunks *c)
{
    int64_t cells = 1, bytes = am_dtype_bytes(t->dtype);
    if (H5Pget_chunk(dcpl, AM_MAX_DIMS, c->extent) != t->ndim) {
        return bad_chunk(path, t, "has chunks of another rank");
    }
    c->ndim = t->ndim;
    for (int d = 0; d < t->ndim; d++) { /* chunks are below 64 MiB: checked when it was opened */
        c->grid[d] = ((hsize_t)t->shape[d] + c->extent[d] - 1) / c->extent[d];
        cells *= (int64_t)c->grid[d];
        bytes *= (int64_t)c->extent[d];
    }
    c->seen = am_new(cells / 8 + 1, 1, "a map of chunks");
    c->bytes = bytes;
    return c->seen != NULL ? 0 : AM_E_NOMEM;
}

int am_h5_chunks_open(hid_t dset, const char *path, const am_tensor *tensor, am_h5_chunks *out)
{
    int rc = 0;
    *out = (am_h5_chunks){0};
    hid_t dcpl = H5Dget_create_plist(dset);
    if (dcpl < 0) {
        return am_h5_fail(AM_E_DATA, "%s: cannot read tensor %s", path, tensor->name);
    }
    if (H5Pget_layout(dcpl) == H5D_CHUNKED) {
        AM_KEEP(read_pipeline(dcpl, path, tensor, out));
        AM_KEEP(read_grid(dcpl, path, tensor, out));
    }
    H5Pclose(dcpl);
    return rc;
}

void am_h5_chunks_free(am_h5_chunks *chunks)
{
    free(chunks->seen);
    *chunks = (am_h5_chunks){0};
}

/* Bytes that a deflate stream unpacks to, at most limit + 1; -1: not a sound stream. */
static int64_t inflated_bytes(unsigned char *data, int64_t n, int64_t limit)
{
    unsigned char window[WINDOW_BYTES];
    z_stream z = {.next_in = data, .avail_in = (uInt)n};
    if (n <= 0 || inflateInit(&z) != Z_OK) {
        return -1;
    }
    int status = Z_OK;
    while (status == Z_OK && (int64_t)z.total_out <= limit) {
        z.next_out = window;
        z.avail_out = sizeof window;
        status = inflate(&z, Z_NO_FLUSH);
    }
    int64_t out = (int64_t)z.total_out;
    inflateEnd(&z);
    return status == Z_STREAM_END || out > limit ? out : -1;
}

/* Size after undoing the filters, last first; -1 if that cannot be told. */
static int64_t unpacked_bytes(const am_h5_chunks *c, unsigned mask, unsigned char *data, int64_t n)
{
    bool is_raw = true; /* data still begins with the next filter's input */
    for (int i = c->n_filters - 1; i >= 0 && n >= 0; i--) {
        if (mask >> i & 1) {
            continue;
        }
        if (c->filter[i] == H5Z_FILTER_FLETCHER32) {
            n -= CHECKSUM_BYTES;
        } else if (c->filter[i] == H5Z_FILTER_DEFLATE) {
            n = is_raw ? inflated_bytes(data, n, c->bytes + CHECKSUM_BYTES) : -1;
            is_raw = false;
        } else { /* shuffle keeps the size */
            is_raw = false;
        }
    }
    return n;
}

static int check_chunk(const am_h5_chunks *c, hid_t dset, const char *path, const am_tensor *t,
                       const hsize_t *offset)
{
    unsigned mask = 0;
    uint32_t read_mask = 0;
    haddr_t address = HADDR_UNDEF;
    hsize_t stored = 0;
    if (H5Dget_chunk_info_by_coord(dset, offset, &mask, &address, &stored) < 0) {
        return am_h5_fail(AM_E_DATA, "%s: tensor %s: cannot find a chunk", path, t->name);
    }
    if (address == HADDR_UNDEF) { /* never written: the fill value */
        return 0;
    }
    if (c->n_filters == 0) {
        return (int64_t)stored == c->bytes ? 0 : bad_chunk(path, t, "a chunk has a wrong size");
    }
    if (stored > 2 * (hsize_t)c->bytes + WINDOW_BYTES) {
        return bad_chunk(path, t, "a chunk has a wrong size");
    }
    unsigned char *data = am_new((int64_t)stored + 1, 1, "a packed chunk");
    if (data == NULL) {
        return AM_E_NOMEM;
    }
    int rc = 0;
    if (H5Dread_chunk(dset, H5P_DEFAULT, offset, &read_mask, data) < 0) {
        rc = am_h5_fail(AM_E_DATA, "%s: tensor %s: cannot read a chunk", path, t->name);
    } else if (unpacked_bytes(c, read_mask, data, (int64_t)stored) != c->bytes) {
        rc = bad_chunk(path, t, "a chunk does not unpack to its size");
    }
    free(data);
    return rc;
}

int am_h5_chunks_check(am_h5_chunks *chunks, hid_t dset, const char *path, const am_tensor *tensor,
                       const hsize_t *start, const hsize_t *count)
{
    const am_h5_chunks *c = chunks;
    hsize_t at[AM_MAX_DIMS], offset[AM_MAX_DIMS];
    if (c->bytes == 0) {
        return 0;
    }
    for (int d = 0; d < c->ndim; d++) {
        at[d] = start[d] / c->extent[d];
    }
    for (int d = 0; d >= 0;) { /* an odometer over the chunks of the box */
        hsize_t cell = 0;
        for (d = 0; d < c->ndim; d++) {
            cell = cell * c->grid[d] + at[d];
            offset[d] = at[d] * c->extent[d];
        }
        if ((c->seen[cell / 8] >> cell % 8 & 1) == 0) {
            int rc = check_chunk(c, dset, path, tensor, offset);
            if (rc != 0) {
                return rc;
            }
            chunks->seen[cell / 8] |= (unsigned char)(1u << cell % 8);
        }
        for (d = c->ndim - 1; d >= 0; d--) {
            if (++at[d] <= (start[d] + count[d] - 1) / c->extent[d]) {
                break;
            }
            at[d] = start[d] / c->extent[d];
        }
    }
    return 0;
}
