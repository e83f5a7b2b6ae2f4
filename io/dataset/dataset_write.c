/* Writing a prepared task: serial HDF5, contiguous, no times, under a temporary name.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/dataset/dataset.h"
#include "mpi/error.h"
#include "mpi/jsonw.h"

enum { FORMAT_VERSION = 1, SIDE = 28 };

static const char *const split_names[AM_SPLITS] = {"train", "validation", "test"};

/* ---- single objects; all return 0 or AM_E_IO naming the object ---- */

static int fail_write(const char *path, const char *what)
{
    return am_fail(AM_E_IO, "cannot write %s into %s (disk full?)", what, path);
}

static int write_attribute(hid_t file, const char *path, const char *key, hid_t type, hid_t space,
                           const void *value)
{
    hid_t attribute = H5Acreate2(file, key, type, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t status = attribute >= 0 ? H5Awrite(attribute, type, value) : -1;
    if (attribute >= 0 && H5Aclose(attribute) < 0) {
        status = -1;
    }
    return status < 0 ? fail_write(path, key) : 0;
}

static int write_text(hid_t file, const char *path, const char *key, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    int rc = type >= 0 && space >= 0 && H5Tset_size(type, strlen(value) + 1) >= 0 &&
                     H5Tset_cset(type, H5T_CSET_UTF8) >= 0
                 ? write_attribute(file, path, key, type, space, value)
                 : fail_write(path, key);
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    if (type >= 0) {
        (void)H5Tclose(type);
    }
    return rc;
}

static int write_integer(hid_t file, const char *path, const char *key, int64_t value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    int64_t stored = value;
    int rc = space >= 0 ? write_attribute(file, path, key, H5T_STD_I64LE, space, &stored)
                        : fail_write(path, key);
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return rc;
}

/* A contiguous dataset without times, allocated early, never filled. */
static int write_array(hid_t parent, const char *path, const char *key, hid_t file_type,
                       hid_t memory_type, int dims, const hsize_t *shape, const void *data)
{
    int rc = 0;
    hid_t space = H5Screate_simple(dims, shape, NULL), set = -1;
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    if (space < 0 || dcpl < 0 || H5Pset_obj_track_times(dcpl, false) < 0 ||
        H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER) < 0) {
        AM_TRY(fail_write(path, key));
    }
    set = H5Dcreate2(parent, key, file_type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    if (set < 0 || H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
        AM_TRY(fail_write(path, key));
    }
cleanup:
    if (set >= 0 && H5Dclose(set) < 0 && rc == 0) {
        rc = fail_write(path, key);
    }
    if (dcpl >= 0) {
        (void)H5Pclose(dcpl);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return rc;
}

static int write_split(hid_t file, const char *path, const am_prepared *p, int s)
{
    int rc = 0;
    hid_t group = -1, gcpl = H5Pcreate(H5P_GROUP_CREATE);
    const hsize_t n = (hsize_t)p->n[s], features = (hsize_t)p->features;
    const bool is_text = p->y[s] == NULL;
    const hsize_t shape[3] = {n, features == 0 ? SIDE : features + (is_text ? 1 : 0), SIDE};
    const int dims = features == 0 ? 3 : 2;
    if (gcpl < 0 || H5Pset_obj_track_times(gcpl, false) < 0) {
        AM_TRY(fail_write(path, split_names[s]));
    }
    group = H5Gcreate2(file, split_names[s], H5P_DEFAULT, gcpl, H5P_DEFAULT);
    if (group < 0) {
        AM_TRY(fail_write(path, split_names[s]));
    }
    if (p->real[s] != NULL) {
        AM_TRY(write_array(group, path, "x", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, dims, shape,
                           p->real[s]));
    } else {
        AM_TRY(write_array(group, path, is_text ? "tokens" : "x", H5T_STD_U8LE, H5T_NATIVE_UINT8,
                           dims, shape, p->x[s]));
    }
    if (!is_text) {
        AM_TRY(write_array(group, path, "y", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, shape, p->y[s]));
    }
    if (p->group_name != NULL && p->group[s] != NULL) {
        AM_TRY(write_array(group, path, "group", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, shape,
                           p->group[s]));
    }
cleanup:
    if (group >= 0 && H5Gclose(group) < 0 && rc == 0) {
        rc = fail_write(path, split_names[s]);
    }
    if (gcpl >= 0) {
        (void)H5Pclose(gcpl);
    }
    return rc;
}

/* ["name", ...]; the lists here stay far below the 64 KiB that an attribute can hold. */
static int json_names(char *const *name, int64_t n, am_json *json)
{
    am_json_array(json, NULL);
    for (int64_t i = 0; i < n; i++) {
        am_json_string(json, NULL, name[i]);
    }
    am_json_end_array(json);
    return am_json_finish(json);
}

static int write_head(hid_t file, const char *path, const char *name, uint64_t seed,
                      const am_prepared *p)
{
    int rc = 0;
    am_json classes = {0}, groups = {0};
    AM_TRY(write_integer(file, path, "allmerge", FORMAT_VERSION));
    AM_TRY(write_text(file, path, "name", name));
    if (p->class_name != NULL) {
        AM_TRY(json_names(p->class_name, p->classes, &classes));
        AM_TRY(write_text(file, path, "classes", classes.text));
    }
    AM_TRY(write_text(file, path, "source", p->source));
    AM_TRY(write_text(file, path, "licence", p->licence));
    AM_TRY(write_integer(file, path, "features", p->features > 0 ? p->features : SIDE * SIDE));
    AM_TRY(write_integer(file, path, "seed", (int64_t)seed));
    if (p->group_name != NULL) {
        AM_TRY(json_names(p->group_name, p->groups, &groups));
        AM_TRY(write_text(file, path, "groups", groups.text));
    }
cleanup:
    am_json_free(&classes);
    am_json_free(&groups);
    return rc;
}

static int write_file(const char *path, const char *name, uint64_t seed, const am_prepared *p)
{
    int rc = 0;
    hid_t file = -1, fcpl = H5Pcreate(H5P_FILE_CREATE);
    if (fcpl < 0 || H5Pset_obj_track_times(fcpl, false) < 0) {
        AM_TRY(am_fail(AM_E_NOMEM, "HDF5 property list for %s", path));
    }
    file = H5Fcreate(path, H5F_ACC_TRUNC, fcpl, H5P_DEFAULT);
    if (file < 0) {
        AM_TRY(am_fail(AM_E_CREATE, "cannot create %s", path));
    }
    AM_TRY(write_head(file, path, name, seed, p));
    for (int s = 0; s < AM_SPLITS; s++) {
        AM_TRY(write_split(file, path, p, s));
    }
cleanup:
    if (file >= 0 && H5Fclose(file) < 0 && rc == 0) {
        rc = fail_write(path, "the last bytes");
    }
    if (fcpl >= 0) {
        (void)H5Pclose(fcpl);
    }
    return rc;
}

/* ---- publish ---- */

static int sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        int code = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return am_fail_errno(AM_E_IO, code, "cannot sync %s", path);
    }
    return close(fd) == 0 ? 0 : am_fail_errno(AM_E_IO, errno, "cannot close %s", path);
}

int am_prepared_write(const char *path, const char *name, uint64_t seed, const am_prepared *p,
                      bool overwrite)
{
    int rc = 0;
    char *partial = NULL, *folder = strdup(path);
    if (asprintf(&partial, "%s.partial", path) < 0 || folder == NULL) {
        partial = NULL;
        AM_TRY(am_fail(AM_E_NOMEM, "no memory for a path"));
    }
    if (!overwrite && access(path, F_OK) == 0) {
        AM_TRY(am_fail(AM_E_CREATE, "%s exists; give --overwrite to make it again", path));
    }
    int fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) { /* said here, because HDF5 does not give the reason */
        AM_TRY(am_fail_errno(AM_E_CREATE, errno, "cannot create %s", partial));
    }
    (void)close(fd);
    H5E_BEGIN_TRY
    {
        rc = write_file(partial, name, seed, p);
    }
    H5E_END_TRY;
    AM_KEEP(sync_path(partial, O_RDWR));
    if (rc == 0 && rename(partial, path) != 0) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot rename %s to %s", partial, path);
    }
    if (rc != 0) {
        (void)unlink(partial);
    }
    AM_KEEP(sync_path(dirname(folder), O_RDONLY | O_DIRECTORY));
cleanup:
    free(folder);
    free(partial);
    return rc;
}

/* ---- an output that is there already ---- */

static bool has_text(hid_t file, const char *key, const char *value)
{
    size_t bytes = strlen(value) + 1;
    char *text = calloc(bytes, 1);
    hid_t attribute = H5Aopen(file, key, H5P_DEFAULT);
    hid_t type = attribute >= 0 ? H5Aget_type(attribute) : -1;
    bool is_same = text != NULL && type >= 0 && H5Tget_class(type) == H5T_STRING &&
                   H5Tis_variable_str(type) == 0 && H5Tget_size(type) == bytes &&
                   H5Aread(attribute, type, text) >= 0 && strcmp(text, value) == 0;
    if (type >= 0) {
        (void)H5Tclose(type);
    }
    if (attribute >= 0) {
        (void)H5Aclose(attribute);
    }
    free(text);
    return is_same;
}

static bool has_integer(hid_t file, const char *key, int64_t value)
{
    int64_t stored = 0;
    hid_t attribute = H5Aopen(file, key, H5P_DEFAULT);
    hid_t space = attribute >= 0 ? H5Aget_space(attribute) : -1;
    bool is_same = space >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                   H5Aread(attribute, H5T_NATIVE_INT64, &stored) >= 0 && stored == value;
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    if (attribute >= 0) {
        (void)H5Aclose(attribute);
    }
    return is_same;
}

int am_prepared_present(const char *path, const char *name, uint64_t seed, bool *is_present)
{
    bool is_same = false;
    *is_present = false;
    if (access(path, F_OK) != 0) {
        return 0;
    }
    H5E_BEGIN_TRY
    {
        hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        if (file >= 0) {
            is_same = has_integer(file, "allmerge", FORMAT_VERSION) &&
                      has_text(file, "name", name) && has_integer(file, "seed", (int64_t)seed);
            (void)H5Fclose(file);
        }
    }
    H5E_END_TRY;
    *is_present = is_same;
    return is_same ? 0
                   : am_fail(AM_E_CREATE,
                             "%s exists and was not made by this command and seed; give "
                             "--overwrite to replace it",
                             path);
}
