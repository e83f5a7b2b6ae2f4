/* Native HDF5: one contiguous dataset per tensor in the root group, under its own name; metadata as
 * fixed-length UTF-8 attributes of the root group. Rank 0 writes the structure with the serial
 * driver and learns where the data goes; HDF5 never sees the data.
 *
 * HDF5 writes into memory (a memfd), and its bytes are copied to the file with checked writes: when
 * a write of its own fails, 1.10.8 keeps a freed file in its tables and crashes at MPI_Finalize.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/file.h"
#include "io/checkpoint/format.h"
#include "io/hdf5/h5_read.h"
#include "io/hdf5/h5_util.h"
#include "mpi/error.h"

enum { ALIGNMENT = 4096, COPY_BYTES = 65536 };

static bool recognises(const am_probe *probe)
{
    return !probe->is_folder && probe->has_hdf5_signature;
}

/* No time stamps, compact modern metadata, data on page boundaries. */
static hid_t create_file(const char *path)
{
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), fcpl = H5Pcreate(H5P_FILE_CREATE), file = -1;
    if (fapl >= 0 && fcpl >= 0 && H5Pset_fapl_stdio(fapl) >= 0 &&
        H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG) >= 0 &&
        H5Pset_libver_bounds(fapl, H5F_LIBVER_V18, H5F_LIBVER_V110) >= 0 &&
        H5Pset_alignment(fapl, ALIGNMENT, ALIGNMENT) >= 0 && H5Pset_obj_track_times(fcpl, 0) >= 0) {
        file = H5Fcreate(path, H5F_ACC_TRUNC, fcpl, fapl);
    }
    if (fapl >= 0) {
        H5Pclose(fapl);
    }
    if (fcpl >= 0) {
        H5Pclose(fcpl);
    }
    return file;
}

static hid_t make_dcpl(void)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    if (dcpl >= 0 &&
        (H5Pset_layout(dcpl, H5D_CONTIGUOUS) < 0 ||
         H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY) < 0 ||
         H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER) < 0 || H5Pset_obj_track_times(dcpl, 0) < 0)) {
        H5Pclose(dcpl);
        dcpl = -1;
    }
    return dcpl;
}

/* ---- attributes ---- */

static int write_attribute(hid_t root, const char *name, const char *value)
{
    size_t n = strlen(value);
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attribute = -1;
    herr_t ok = -1;
    if (type >= 0 && space >= 0 && H5Tset_size(type, n > 0 ? n : 1) >= 0 &&
        H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0) {
        attribute = H5Acreate2(root, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    }
    if (attribute >= 0) {
        ok = H5Awrite(attribute, type, value); /* an empty value: its NUL is the one byte */
        ok = H5Aclose(attribute) >= 0 ? ok : -1;
    }
    if (type >= 0) {
        H5Tclose(type);
    }
    if (space >= 0) {
        H5Sclose(space);
    }
    return ok >= 0 ? 0 : am_h5_fail(AM_E_IO, "cannot write the attribute %s", name);
}

static int write_metadata(hid_t file, const am_meta *meta)
{
    int rc = 0;
    hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
    if (root < 0) {
        return am_h5_fail(AM_E_IO, "cannot open the root group");
    }
    AM_TRY(write_attribute(root, AM_H5_MARK, "1"));
    for (int64_t i = 0; meta != NULL && i < meta->n; i++) {
        char *name = am_h5_attribute_name(meta->key[i]);
        rc = name != NULL ? write_attribute(root, name, meta->value[i]) : AM_E_NOMEM;
        free(name);
        AM_TRY(rc);
    }
cleanup:
    if (H5Gclose(root) < 0 && rc == 0) {
        rc = am_h5_fail(AM_E_IO, "cannot close the root group");
    }
    return rc;
}

/* ---- datasets ---- */

static int create_dataset(hid_t file, hid_t dcpl, const am_tensor *t, am_layout *out)
{
    hsize_t dims[AM_MAX_DIMS];
    for (int d = 0; d < t->ndim; d++) {
        dims[d] = (hsize_t)t->shape[d];
    }
    char *name = am_h5_escape(t->name);
    if (name == NULL) {
        return AM_E_NOMEM;
    }
    haddr_t offset = HADDR_UNDEF;
    hid_t type = am_h5_type_make(t->dtype), dset = -1;
    hid_t space = t->ndim > 0 ? H5Screate_simple(t->ndim, dims, NULL) : H5Screate(H5S_SCALAR);
    if (type >= 0 && space >= 0) {
        dset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    }
    bool done = dset >= 0;
    if (done && t->numel > 0) {
        offset = H5Dget_offset(dset);
        done = offset != HADDR_UNDEF;
    }
    if (dset >= 0) {
        done = H5Dclose(dset) >= 0 && done;
    }
    if (type >= 0) {
        H5Tclose(type);
    }
    if (space >= 0) {
        H5Sclose(space);
    }
    free(name);
    if (!done) {
        return am_h5_fail(AM_E_IO, "cannot create the dataset of tensor %s", t->name);
    }
    am_extent extent = {.offset = t->numel > 0 ? (int64_t)offset : 0};
    return am_layout_add(out, t->name, t->dtype, t->ndim, t->shape, extent);
}

/* name  where HDF5 writes;  path  what a message names */
static int write_structure(const char *name, const char *path, const am_tensor_table *tensors,
                           const am_meta *meta, am_layout *out)
{
    int rc = 0;
    hid_t dcpl = -1;
    am_h5_begin();
    hid_t file = create_file(name);
    if (file < 0) {
        return am_h5_fail(AM_E_IO, "cannot create the structure of %s", path);
    }
    dcpl = make_dcpl();
    if (dcpl < 0) {
        rc = am_h5_fail(AM_E_BUG, "cannot make HDF5 property lists");
        goto cleanup;
    }
    AM_TRY(write_metadata(file, meta));
    for (int64_t i = 0; i < tensors->n; i++) {
        AM_TRY(create_dataset(file, dcpl, &tensors->t[i], out));
    }
cleanup:
    if (dcpl >= 0) {
        H5Pclose(dcpl);
    }
    if (H5Fclose(file) < 0 && rc == 0) { /* writes all metadata */
        rc = am_h5_fail(AM_E_IO, "cannot write the structure of %s", path);
    }
    return rc;
}

/* Copy what HDF5 wrote, not the holes that it left for the data. */
static int copy_structure(int from, int to, const char *path, int64_t end)
{
    int rc = 0;
    char buffer[COPY_BYTES];
    off_t at = 0;
    while (rc == 0 && at < (off_t)end && (at = lseek(from, at, SEEK_DATA)) >= 0) {
        off_t hole = lseek(from, at, SEEK_HOLE);
        while (rc == 0 && at < hole) {
            int64_t n = hole - at < COPY_BYTES ? (int64_t)(hole - at) : COPY_BYTES;
            AM_KEEP(am_file_read(from, "the structure in memory", buffer, n, at));
            AM_KEEP(am_file_write(to, path, buffer, n, at));
            at += (off_t)n;
        }
    }
    if (rc == 0 && at < 0 && errno != ENXIO) { /* ENXIO: only a hole is left */
        rc = am_fail_errno(AM_E_IO, errno, "cannot read the structure of %s in memory", path);
    }
    return rc;
}

/* Size the file, reserve its space, fill in the structure, check that all data lies inside. */
static int fill_file(int fd, int memory, const char *path, am_layout *out)
{
    int rc = 0;
    struct stat st;
    if (fstat(memory, &st) != 0) {
        return am_fail_errno(AM_E_IO, errno, "cannot examine the structure of %s", path);
    }
    int64_t end = (int64_t)st.st_size;
    for (int64_t i = 0; i < out->tensors.n; i++) {
        int64_t last = out->extent[i].offset + am_tensor_bytes(&out->tensors.t[i]);
        if (last > end) {
            rc = am_fail(AM_E_BUG, "HDF5 left tensor %s beyond the end of %s",
                         out->tensors.t[i].name, path);
        }
    }
    out->files[0].bytes = end;
    AM_KEEP(am_file_reserve(fd, path, end));
    AM_KEEP(copy_structure(memory, fd, path, end));
    return rc;
}

/* Of a tensor at most: its header, and the gap before its data. */
enum { LARGEST_STRUCTURE = 8192 };

/* HDF5 1.10 ends the process when it cannot grow a file, so a limit (ulimit -f) is looked at
 * before. */
static int check_limit(const char *path, const am_tensor_table *tensors)
{
    struct rlimit limit;
    int64_t bytes = LARGEST_STRUCTURE * (tensors->n + 1);
    for (int64_t i = 0; i < tensors->n; i++) {
        bytes += am_tensor_bytes(&tensors->t[i]);
    }
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        (int64_t)limit.rlim_cur >= bytes) {
        return 0;
    }
    return am_fail(
        AM_E_IO,
        "no space for %s: it needs %lld bytes and files may grow to %lld here: raise the "
        "limit (ulimit -f)",
        path, (long long)bytes, (long long)limit.rlim_cur);
}

static int lay_out(const char *path, const am_tensor_table *tensors, const am_ckpt_options *options,
                   am_layout *out)
{
    char name[32];
    int rc = check_limit(path, tensors);
    if (rc != 0) {
        return rc;
    }
    int fd = am_file_create(path);
    if (fd < 0) {
        return fd;
    }
    int memory = memfd_create("allmerge-structure", MFD_CLOEXEC);
    if (memory < 0) {
        rc = am_fail_errno(AM_E_NOMEM, errno, "cannot make the structure of %s in memory", path);
        goto cleanup;
    }
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", memory);
    int file = am_layout_add_file(out, "", 0);
    AM_TRY(file < 0 ? file : 0);
    AM_TRY(write_structure(name, path, tensors, options->meta, out));
    AM_TRY(fill_file(fd, memory, path, out));
    AM_TRY(am_layout_finish(out));
cleanup:
    if (memory >= 0) {
        close(memory);
    }
    int closed = am_file_sync_close(fd, path);
    return rc != 0 ? rc : closed;
}

static const char *const endings[] = {".h5", ".hdf5", NULL};

const am_format am_format_h5 = {
    .name = "h5",
    .help = "one HDF5 file, a contiguous dataset for each tensor",
    .endings = endings,
    .recognises = recognises,
    .read_layout = am_h5_read_layout,
    .lay_out = lay_out,
    .library_open = am_h5_library_open,
    .library_read = am_h5_library_read,
    .library_close = am_h5_library_close,
};
