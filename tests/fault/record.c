/* LD_PRELOAD library that records what is written, for power_loss.py: every successful write, sync,
 * rename, ... of files below AM_RECORD_PATH goes to AM_RECORD.<process id>, one record after
 * another: `head`, the path, a second path or the data. A sync bears the time at which it began,
 * everything else the time at which it was over, so that nothing counts as synced that may not have
 * been. Not recorded: calls inside the C library (stdio). Test code only.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef enum op {
    OP_CREATE = 1,
    OP_WRITE,
    OP_SIZE, /* offset: at least so long; truncated to it if n is 1 */
    OP_SYNC,
    OP_RENAME, /* n is 1: exchange */
    OP_UNLINK,
    OP_MKDIR,
    OP_RMDIR
} op;

typedef struct head {
    int64_t ns, op, offset, n; /* n: bytes of data, or a flag */
    int64_t path_bytes, second_bytes;
} head;

static int out = -1;
static const char *below;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void)
{
    char path[1024];
    const char *prefix = getenv("AM_RECORD");
    below = getenv("AM_RECORD_PATH");
    if (prefix != NULL && below != NULL) {
        snprintf(path, sizeof path, "%s.%d", prefix, (int)getpid());
        out = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                           0644);
    }
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void put(const void *data, size_t n)
{
    for (const char *at = data; n > 0;) {
        const long done = syscall(SYS_write, out, at, n);
        if (done <= 0) {
            syscall(SYS_exit_group, 99);
        }
        at += done;
        n -= (size_t)done;
    }
}

static void record(int64_t ns, op what, const char *path, const char *second, const void *data,
                   int64_t n, int64_t offset)
{
    const int saved = errno;
    const head h = {.ns = ns,
                    .op = what,
                    .offset = offset,
                    .n = n,
                    .path_bytes = (int64_t)strlen(path),
                    .second_bytes = (int64_t)strlen(second)};
    pthread_mutex_lock(&lock);
    put(&h, sizeof h);
    put(path, strlen(path));
    put(second, strlen(second));
    if (data != NULL) {
        put(data, (size_t)n);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
}

/* Absolute path of a name, or of a descriptor (name NULL); false: it is of no interest. */
static bool full_path(int folder, const char *name, char path[4096])
{
    char link[64] = "/proc/self/cwd";
    if (out < 0) {
        return false;
    }
    path[0] = '\0';
    if (name == NULL || name[0] != '/') {
        if (folder != AT_FDCWD) {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        }
        const long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, 2000);
        path[n < 0 ? 0 : n] = '\0';
        if (name != NULL) {
            strcat(path, "/");
        }
    }
    if (name != NULL) {
        strncat(path, name, 2000);
    }
    return strncmp(path, below, strlen(below)) == 0;
}

#define EXPORT __attribute__((visibility("default")))

static int open_common(int folder, const char *name, int flags, mode_t mode)
{
    char path[4096];
    const bool is_ours = (flags & (O_CREAT | O_TRUNC)) != 0 && full_path(folder, name, path);
    const bool is_new = is_ours && syscall(SYS_faccessat, folder, name, F_OK) != 0;
    const int fd = (int)syscall(SYS_openat, folder, name, flags, mode);
    if (fd >= 0 && is_new) {
        record(now(), OP_CREATE, path, "", NULL, 0, 0);
    } else if (fd >= 0 && is_ours && (flags & O_TRUNC) != 0) {
        record(now(), OP_SIZE, path, "", NULL, 1, 0);
    }
    return fd;
}

#define DEFINE_OPEN(symbol)                                                                        \
    EXPORT int symbol(const char *name, int flags, ...);                                           \
    EXPORT int symbol(const char *name, int flags, ...)                                            \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;                     \
        va_end(args);                                                                              \
        return open_common(AT_FDCWD, name, flags, mode);                                           \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)
DEFINE_OPEN(__open_2)
DEFINE_OPEN(__open64_2)

static ssize_t wrote(int fd, const void *data, ssize_t n, off_t offset)
{
    char path[4096];
    if (n > 0 && full_path(fd, NULL, path)) {
        record(now(), OP_WRITE, path, "", data, n, offset);
    }
    return n;
}

#define DEFINE_PWRITE(symbol)                                                                      \
    EXPORT ssize_t symbol(int fd, const void *data, size_t n, off_t offset)                        \
    {                                                                                              \
        return wrote(fd, data, syscall(SYS_pwrite64, fd, data, n, offset), offset);                \
    }
DEFINE_PWRITE(pwrite)
DEFINE_PWRITE(pwrite64)

EXPORT ssize_t write(int fd, const void *data, size_t n)
{
    const off_t at = out >= 0 ? (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR) : -1;
    const ssize_t done = syscall(SYS_write, fd, data, n);
    return at >= 0 ? wrote(fd, data, done, at) : done;
}

static int synced(int fd, long number)
{
    char path[4096];
    const int64_t start_ns = now();
    const bool is_ours = full_path(fd, NULL, path);
    const int rc = (int)syscall(number, fd);
    if (rc == 0 && is_ours) {
        record(start_ns, OP_SYNC, path, "", NULL, 0, 0);
    }
    return rc;
}
EXPORT int fsync(int fd)
{
    return synced(fd, SYS_fsync);
}
EXPORT int fdatasync(int fd)
{
    return synced(fd, SYS_fdatasync);
}

static int sized(int rc, int fd, int64_t bytes, bool cut)
{
    char path[4096];
    if (rc == 0 && full_path(fd, NULL, path)) {
        record(now(), OP_SIZE, path, "", NULL, cut, bytes);
    }
    return rc;
}
#define DEFINE_SIZES(truncate_symbol, allocate_symbol)                                             \
    EXPORT int truncate_symbol(int fd, off_t bytes)                                                \
    {                                                                                              \
        return sized((int)syscall(SYS_ftruncate, fd, bytes), fd, bytes, true);                     \
    }                                                                                              \
    EXPORT int allocate_symbol(int fd, int mode, off_t offset, off_t bytes)                        \
    {                                                                                              \
        return sized((int)syscall(SYS_fallocate, fd, mode, offset, bytes), fd, offset + bytes,     \
                     false);                                                                       \
    }
DEFINE_SIZES(ftruncate, fallocate)
DEFINE_SIZES(ftruncate64, fallocate64)

EXPORT int renameat2(int from_folder, const char *from, int to_folder, const char *to,
                     unsigned flags)
{
    char old[4096], new[4096];
    const bool is_ours = full_path(from_folder, from, old) && full_path(to_folder, to, new);
    const int rc = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (rc == 0 && is_ours) {
        record(now(), OP_RENAME, old, new, NULL, (flags & 2) != 0, 0);
    }
    return rc;
}
EXPORT int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int removed(int folder, const char *name, int flags)
{
    char path[4096];
    const bool is_ours = full_path(folder, name, path);
    const int rc = (int)syscall(SYS_unlinkat, folder, name, flags);
    if (rc == 0 && is_ours) {
        record(now(), flags != 0 ? OP_RMDIR : OP_UNLINK, path, "", NULL, 0, 0);
    }
    return rc;
}
EXPORT int unlink(const char *name)
{
    return removed(AT_FDCWD, name, 0);
}
EXPORT int unlinkat(int folder, const char *name, int flags)
{
    return removed(folder, name, flags);
}
EXPORT int rmdir(const char *name)
{
    return removed(AT_FDCWD, name, AT_REMOVEDIR);
}
EXPORT int mkdir(const char *name, mode_t mode)
{
    char path[4096];
    const bool is_ours = full_path(AT_FDCWD, name, path);
    const int rc = (int)syscall(SYS_mkdirat, AT_FDCWD, name, mode);
    if (rc == 0 && is_ours) {
        record(now(), OP_MKDIR, path, "", NULL, 0, 0);
    }
    return rc;
}
