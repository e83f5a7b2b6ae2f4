/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/hdf5/h5_util.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "io/file.h"
#include "mpi/arena.h"
#include "mpi/error.h"

void am_h5_begin(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
}

hid_t am_h5_open_read(const char *path, size_t cache_bytes)
{
    am_h5_begin();
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), file = -1;
    if (fapl >= 0 && H5Pset_fapl_sec2(fapl) >= 0 &&
        H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG) >= 0 &&
        H5Pset_cache(fapl, 0, 521, cache_bytes, 1.0) >= 0) {
        file = H5Fopen(path, H5F_ACC_RDONLY, fapl);
    }
    if (fapl >= 0) {
        H5Pclose(fapl);
    }
    return file;
}

static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *data)
{
    (void)n;
    *(const char **)data = error->desc;
    return 0;
}

int am_h5_fail(int code, const char *format, ...)
{
    char text[AM_MESSAGE_BYTES / 2];
    const char *reason = NULL;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_innermost, &reason);
    return am_fail(code, "%s%s%.500s", text, reason != NULL ? ": " : "",
                   reason != NULL ? reason : "");
}

/* ---- types ---- */

static hid_t make_half(size_t exponent_bits, size_t mantissa_bits, size_t bias)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type >= 0 && (H5Tset_fields(type, 15, mantissa_bits, exponent_bits, 0, mantissa_bits) < 0 ||
                      H5Tset_size(type, 2) < 0 || H5Tset_ebias(type, bias) < 0)) {
        H5Tclose(type);
        type = -1;
    }
    return type;
}

static hid_t make_bool(void)
{
    hid_t type = H5Tenum_create(H5T_STD_I8LE);
    const signed char no = 0, yes = 1;
    if (type >= 0 &&
        (H5Tenum_insert(type, "FALSE", &no) < 0 || H5Tenum_insert(type, "TRUE", &yes) < 0)) {
        H5Tclose(type);
        type = -1;
    }
    return type;
}

hid_t am_h5_type_make(am_dtype dtype)
{
    switch (dtype) {
    case AM_DTYPE_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case AM_DTYPE_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case AM_DTYPE_F16:
        return make_half(5, 10, 15);
    case AM_DTYPE_BF16:
        return make_half(8, 7, 127);
    case AM_DTYPE_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case AM_DTYPE_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case AM_DTYPE_I16:
        return H5Tcopy(H5T_STD_I16LE);
    case AM_DTYPE_I8:
        return H5Tcopy(H5T_STD_I8LE);
    case AM_DTYPE_U64:
        return H5Tcopy(H5T_STD_U64LE);
    case AM_DTYPE_U32:
        return H5Tcopy(H5T_STD_U32LE);
    case AM_DTYPE_U16:
        return H5Tcopy(H5T_STD_U16LE);
    case AM_DTYPE_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case AM_DTYPE_BOOL:
        return make_bool();
    case AM_DTYPE_COUNT:
        break;
    }
    return -1;
}

am_dtype am_h5_type_of(hid_t type, bool *is_swapped)
{
    am_dtype found = AM_DTYPE_COUNT;
    hid_t little = H5Tcopy(type);
    H5T_class_t kind = H5Tget_class(type);
    if (little < 0) {
        return found;
    }
    *is_swapped = false;
    if (kind == H5T_INTEGER || kind == H5T_FLOAT) {
        *is_swapped = H5Tget_order(type) == H5T_ORDER_BE && H5Tget_size(type) > 1;
        if (H5Tset_order(little, H5T_ORDER_LE) < 0) {
            kind = H5T_NO_CLASS;
        }
    }
    bool is_plain = kind == H5T_INTEGER || kind == H5T_FLOAT || kind == H5T_ENUM;
    for (int d = 0; is_plain && d < AM_DTYPE_COUNT && found == AM_DTYPE_COUNT; d++) {
        hid_t candidate = am_h5_type_make((am_dtype)d);
        if (candidate >= 0 && H5Tequal(candidate, little) > 0) {
            found = (am_dtype)d;
        }
        if (candidate >= 0) {
            H5Tclose(candidate);
        }
    }
    H5Tclose(little);
    return found;
}

/* ---- names ---- */

char *am_h5_escape(const char *name)
{
    if (strcmp(name, ".") == 0) {
        return am_text("%%2E");
    }
    char *out = am_new(3 * (int64_t)strlen(name) + 1, 1, "a tensor name");
    if (out == NULL) {
        return NULL;
    }
    char *to = out;
    for (const char *from = name; *from != '\0'; from++) {
        if (*from == '/' || *from == '%') {
            memcpy(to, *from == '/' ? "%2F" : "%25", 3);
            to += 3;
        } else {
            *to++ = *from;
        }
    }
    return out;
}

char *am_h5_unescape(const char *name)
{
    if (strcmp(name, "%2E") == 0) {
        return am_text(".");
    }
    char *out = am_new((int64_t)strlen(name) + 1, 1, "a tensor name");
    if (out == NULL) {
        return NULL;
    }
    char *to = out;
    for (const char *from = name; *from != '\0'; from++) {
        if (*from != '%') {
            *to++ = *from;
        } else if (strncmp(from, "%2F", 3) == 0 || strncmp(from, "%25", 3) == 0) {
            *to++ = from[2] == 'F' ? '/' : '%';
            from += 2;
        } else {
            free(out);
            return NULL;
        }
    }
    return out;
}

char *am_h5_attribute_name(const char *key)
{
    bool is_plain = key[0] != '\0' && key[0] != '%' && strcmp(key, AM_H5_MARK) != 0;
    return am_text("%s%s", is_plain ? "" : "%", key);
}

/* ---- files in memory ---- */

static int copy_bytes(int from, const char *path, int64_t bytes, int to)
{
    enum { PIECE = 1 << 20 };
    int rc = 0;
    char *piece = am_new(PIECE, 1, path);
    if (piece == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t at = 0; rc == 0 && at < bytes; at += PIECE) {
        int64_t n = bytes - at < PIECE ? bytes - at : PIECE;
        AM_KEEP(am_file_read(from, path, piece, n, at));
        AM_KEEP(am_file_write(to, path, piece, n, at));
    }
    free(piece);
    return rc;
}

static int copy_to_memory(const char *path)
{
    int64_t bytes = 0;
    int from = am_file_open(path, &bytes);
    if (from < 0) {
        return from;
    }
    int rc = 0, memory = memfd_create("allmerge-input", MFD_CLOEXEC);
    if (memory < 0) {
        rc = am_fail_errno(AM_E_NOMEM, errno, "cannot hold %s in memory", path);
    }
    AM_KEEP(copy_bytes(from, path, bytes, memory));
    close(from); /* only read */
    if (rc != 0 && memory >= 0) {
        close(memory);
    }
    return rc != 0 ? rc : memory;
}

int am_h5_memory_open(const char *path, hid_t *file)
{
    char name[32];
    int memory = copy_to_memory(path);
    if (memory < 0) {
        return memory;
    }
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", memory);
    /* Not the sec2 driver: it wants the real path behind the link, which a memfd does not have. */
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    *file = fapl >= 0 && H5Pset_fapl_stdio(fapl) >= 0 ? H5Fopen(name, H5F_ACC_RDONLY, fapl) : -1;
    if (fapl >= 0) {
        (void)H5Pclose(fapl);
    }
    if (*file < 0) {
        close(memory);
        return am_fail(AM_E_DATA, "%s: not an HDF5 file, or truncated", path);
    }
    return memory;
}
