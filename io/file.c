/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/param.h"

enum { AM_IO_STEP = 1 << 30 }; /* bytes of one pread or pwrite at most */

int am_file_open(const char *path, int64_t *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int code = errno == ENOENT || errno == ENOTDIR ? AM_E_NOINPUT : AM_E_IO;
        return am_fail_errno(code, errno, "cannot open %s", path);
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int rc = am_fail_errno(AM_E_IO, errno, "cannot stat %s", path);
        close(fd);
        return rc;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return am_fail(AM_E_DATA, "%s is not a regular file", path);
    }
    if (bytes != NULL) {
        *bytes = (int64_t)st.st_size;
    }
    return fd;
}

int am_file_create(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) {
        int code = errno == EIO || errno == ENOSPC || errno == EDQUOT ? AM_E_IO : AM_E_CREATE;
        return am_fail_errno(code, errno, "cannot create %s", path);
    }
    return fd;
}

int am_file_reopen(const char *path)
{
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 ? fd : am_fail_errno(AM_E_IO, errno, "cannot open %s for writing", path);
}

int am_file_read(int fd, const char *path, void *data, int64_t n, int64_t offset)
{
    char *to = data;
    for (int64_t done = 0; done < n;) {
        size_t step = (size_t)(n - done < AM_IO_STEP ? n - done : AM_IO_STEP);
        ssize_t got = pread(fd, to + done, step, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return am_fail_errno(AM_E_IO, errno,
                                 "cannot read %" PRId64 " bytes at offset %" PRId64 " of %s",
                                 n - done, offset + done, path);
        }
        if (got == 0) {
            return am_fail(AM_E_IO, "%s shrank: no data at offset %" PRId64, path, offset + done);
        }
        done += got;
    }
    return 0;
}

int am_file_write(int fd, const char *path, const void *data, int64_t n, int64_t offset)
{
    const char *from = data;
    for (int64_t done = 0; done < n;) {
        size_t step = (size_t)(n - done < AM_IO_STEP ? n - done : AM_IO_STEP);
        ssize_t put = pwrite(fd, from + done, step, (off_t)(offset + done));
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return am_fail_errno(AM_E_IO, put < 0 ? errno : EIO,
                                 "cannot write %" PRId64 " bytes at offset %" PRId64 " of %s",
                                 n - done, offset + done, path);
        }
        done += put;
    }
    return 0;
}

/* A byte of every PROBE bytes, and the last one: asking costs less than announcing what is there.
 */
static bool is_in_memory(int fd, int64_t offset, int64_t n)
{
    enum { PROBE = 512 << 10 };
    char byte;
    struct iovec to = {.iov_base = &byte, .iov_len = 1};
    bool is_there = true;
    for (int64_t at = 0; is_there && at < n; at += PROBE) {
        is_there = preadv2(fd, &to, 1, (off_t)(offset + at), RWF_NOWAIT) == 1;
    }
    return is_there && preadv2(fd, &to, 1, (off_t)(offset + n - 1), RWF_NOWAIT) == 1;
}

void am_file_announce(int fd, int64_t offset, int64_t n)
{
    if (n > 0 && !is_in_memory(fd, offset, n)) {
        (void)posix_fadvise(fd, (off_t)offset, (off_t)n, POSIX_FADV_WILLNEED);
    }
}

void am_file_write_back(int fd, int64_t offset, int64_t n)
{
    (void)sync_file_range(fd, (off_t)offset, (off_t)n, SYNC_FILE_RANGE_WRITE);
}

static int no_space(const char *path, int64_t bytes, int errno_value)
{
    return am_fail_errno(AM_E_IO, errno_value, "no space for %s: it needs %" PRId64 " bytes (%s)",
                         path, bytes, am_format_bytes(bytes));
}

int am_file_reserve(int fd, const char *path, int64_t bytes)
{
    if (bytes == 0) {
        return 0;
    }
    int failed;
    do {
        failed = fallocate(fd, 0, 0, (off_t)bytes) == 0 ? 0 : errno;
    } while (failed == EINTR);
    if (failed == 0) {
        return 0;
    }
    if (failed != EOPNOTSUPP && failed != ENOSYS) {
        return no_space(path, bytes, failed);
    }
    struct statvfs fs;
    if (fstatvfs(fd, &fs) == 0 && (double)fs.f_bavail * (double)fs.f_frsize < (double)bytes) {
        return no_space(path, bytes, ENOSPC);
    }
    if (ftruncate(fd, (off_t)bytes) != 0) {
        return no_space(path, bytes, errno);
    }
    return 0;
}

int am_file_sync_close(int fd, const char *path)
{
    int rc = 0;
    if (fsync(fd) != 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot sync %s", path);
    }
    if (close(fd) != 0 && rc == 0 && errno != EINTR) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot close %s", path);
    }
    return rc;
}

char *am_clean_path(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    return am_text("%.*s", (int)n, path);
}

char *am_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return am_text(".");
    }
    return slash == path ? am_text("/") : am_text("%.*s", (int)(slash - path), path);
}

int am_file_sync_folder(const char *path)
{
    char *folder = am_folder_of(path);
    if (folder == NULL) {
        return AM_E_NOMEM;
    }
    int rc = 0;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot open folder %s", folder);
    } else {
        /* Some file systems cannot sync a folder and say so: nothing more can be done there. */
        if (fsync(fd) != 0 && errno != EINVAL && errno != EOPNOTSUPP) {
            rc = am_fail_errno(AM_E_IO, errno, "cannot sync folder %s", folder);
        }
        close(fd);
    }
    free(folder);
    return rc;
}

int am_file_slurp(const char *path, int64_t limit, char **text, int64_t *n)
{
    int64_t bytes = 0;
    int fd = am_file_open(path, &bytes);
    if (fd < 0) {
        return fd;
    }
    int rc = 0;
    char *data = NULL;
    if (bytes > limit) {
        rc = am_fail(AM_E_DATA, "%s is %s long, more than the %s allowed for such a file", path,
                     am_format_bytes(bytes), am_format_bytes(limit));
        goto cleanup;
    }
    data = am_new(bytes + 1, 1, path);
    if (data == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    AM_TRY(am_file_read(fd, path, data, bytes, 0));
    *text = data;
    *n = bytes;
    data = NULL;
cleanup:
    free(data);
    close(fd);
    return rc;
}

int am_file_dump(const char *path, const void *data, int64_t n)
{
    int fd = am_file_create(path);
    if (fd < 0) {
        return fd;
    }
    int rc = am_file_write(fd, path, data, n, 0);
    int closed = am_file_sync_close(fd, path);
    return rc != 0 ? rc : closed;
}

char *am_text(const char *format, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
        am_fail(AM_E_NOMEM, "out of memory for a path");
    }
    va_end(args);
    return text;
}
