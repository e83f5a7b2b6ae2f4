/* LD_PRELOAD library that makes one system call of one rank fail, fall short, wait, stop or kill.
 * AM_SHIM="call=pwrite,nth=3,rank=1,path=/dir/out,do=EIO,times=once"; see tests/fault/README.md.
 * Works on the raw system calls, so that it depends on no other library. Test code only.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef enum action { ACT_ERRNO, ACT_SHORT, ACT_KILL, ACT_TERM, ACT_STOP, ACT_DELAY } action;

static struct {
    bool on;     /* this rank has something to do */
    bool always; /* from the nth call on; else the nth only */
    int frames;  /* count a call only where its innermost frames in the main program are new; 0: all
                  */
    action act;
    int number; /* errno, or milliseconds of a delay */
    long nth;   /* from 1 */
    char call[24];
    char path[512];
    uintptr_t main_lo, main_hi; /* code of the main program: only its own allocations count */
    char log[512];
} shim;

static atomic_long calls;

static const struct {
    const char *name;
    int number;
} errnos[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC},         {"EDQUOT", EDQUOT}, {"EINTR", EINTR},
    {"EACCES", EACCES}, {"ENOMEM", ENOMEM},         {"EMFILE", EMFILE}, {"ENOENT", ENOENT},
    {"EROFS", EROFS},   {"EOPNOTSUPP", EOPNOTSUPP}, {"EFBIG", EFBIG},   {"ESTALE", ESTALE}};

static void log_line(const char *what, const char *path)
{
    char line[700];
    if (shim.log[0] == '\0') {
        return;
    }
    const int n = snprintf(line, sizeof line, "%s %s\n", what, path != NULL ? path : "");
    const long fd = syscall(SYS_openat, AT_FDCWD, shim.log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0) {
        const size_t bytes = n < (int)sizeof line ? (size_t)n : sizeof line - 1;
        if (syscall(SYS_write, fd, line, bytes) < 0) {
            syscall(SYS_exit_group, 99);
        }
        syscall(SYS_close, fd);
    }
}

static void bad_spec(const char *item)
{
    fprintf(stderr, "shim: cannot read '%s' in AM_SHIM\n", item);
    _exit(99);
}

static void read_action(const char *value)
{
    if (strcmp(value, "short") == 0) {
        shim.act = ACT_SHORT;
        return;
    }
    if (strcmp(value, "kill") == 0) {
        shim.act = ACT_KILL;
        return;
    }
    if (strcmp(value, "term") == 0) {
        shim.act = ACT_TERM;
        return;
    }
    if (strcmp(value, "stop") == 0) {
        shim.act = ACT_STOP;
        return;
    }
    if (strncmp(value, "delay:", 6) == 0) {
        shim.act = ACT_DELAY;
        shim.number = atoi(value + 6);
        return;
    }
    for (size_t i = 0; i < sizeof errnos / sizeof errnos[0]; i++) {
        if (strcmp(value, errnos[i].name) == 0) {
            shim.act = ACT_ERRNO;
            shim.number = errnos[i].number;
            return;
        }
    }
    bad_spec(value);
}

static int main_range(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X) != 0) {
            shim.main_lo = info->dlpi_addr + p->p_vaddr;
            shim.main_hi = shim.main_lo + p->p_memsz;
        }
    }
    return 1; /* the first one is the main program */
}

__attribute__((constructor)) static void shim_start(void)
{
    const char *spec = getenv("AM_SHIM");
    const char *rank_text = getenv("OMPI_COMM_WORLD_RANK");
    const char *log = getenv("AM_SHIM_LOG");
    char copy[1024];
    int rank = -1; /* every rank */
    if (spec == NULL || strlen(spec) >= sizeof copy) {
        return;
    }
    strcpy(copy, spec);
    shim.nth = 1;
    if (log != NULL && strlen(log) < sizeof shim.log) {
        strcpy(shim.log, log);
    }
    char *rest = NULL;
    for (char *item = strtok_r(copy, ",", &rest); item != NULL; item = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(item, '=');
        if (value == NULL) {
            bad_spec(item);
            return;
        }
        *value++ = '\0';
        if (strcmp(item, "call") == 0 && strlen(value) < sizeof shim.call) {
            strcpy(shim.call, value);
        } else if (strcmp(item, "path") == 0 && strlen(value) < sizeof shim.path) {
            strcpy(shim.path, value);
        } else if (strcmp(item, "nth") == 0) {
            shim.nth = atol(value);
        } else if (strcmp(item, "rank") == 0) {
            rank = atoi(value);
        } else if (strcmp(item, "times") == 0) {
            shim.always = strcmp(value, "always") == 0;
        } else if (strcmp(item, "frames") == 0) {
            shim.frames = atoi(value);
        } else if (strcmp(item, "do") == 0) {
            read_action(value);
        } else {
            bad_spec(item);
        }
    }
    dl_iterate_phdr(main_range, NULL);
    if (shim.frames > 0) { /* loads what it needs now, not inside a call */
        void *frame;
        backtrace(&frame, 1);
    }
    shim.on = rank < 0 || rank == (rank_text != NULL ? atoi(rank_text) : 0);
}

enum { MOST_SITES = 1 << 14, MOST_FRAMES = 64 };
static uint64_t sites[MOST_SITES]; /* hashes, open addressing; 0: free */
static atomic_flag sites_busy = ATOMIC_FLAG_INIT;
static _Thread_local bool is_looking; /* the unwinder's own calls do not count */

/* Are the innermost functions of the program that lead to the call new ones, where each calls? */
static bool is_new_site(void)
{
    void *frame[MOST_FRAMES];
    uint64_t hash = 1469598103934665603U;
    bool is_new = false;
    is_looking = true;
    const int n = backtrace(frame, MOST_FRAMES);
    is_looking = false;
    for (int i = 0, left = shim.frames; i < n && left > 0; i++) {
        const uintptr_t at = (uintptr_t)frame[i];
        if (at >= shim.main_lo && at < shim.main_hi) {
            hash = (hash ^ (at - shim.main_lo)) * 1099511628211U;
            left--;
        }
    }
    hash |= 1;
    while (atomic_flag_test_and_set(&sites_busy)) {
    }
    for (size_t i = hash >> 8; !is_new; i++) {
        uint64_t *place = &sites[i % MOST_SITES];
        if (*place == hash) {
            break;
        }
        is_new = *place == 0;
        *place = is_new ? hash : *place;
    }
    atomic_flag_clear(&sites_busy);
    return is_new;
}

/* Count one call; true when it is to be disturbed by an error or a short count. */
static bool hit(const char *name, const char *path)
{
    const bool counts = shim.frames == 0 || is_new_site();
    const long n = atomic_fetch_add(&calls, counts) + counts;
    if (!counts && !(shim.always && n >= shim.nth)) {
        return false;
    }
    if (n < shim.nth || (n > shim.nth && !shim.always)) {
        return false;
    }
    log_line(name, path);
    switch (shim.act) {
    case ACT_KILL:
        syscall(SYS_kill, getpid(), SIGKILL);
        return false;
    case ACT_TERM:
        syscall(SYS_kill, getpid(), SIGTERM);
        return false;
    case ACT_STOP:
        syscall(SYS_kill, getpid(), SIGSTOP);
        return false;
    case ACT_DELAY: {
        const struct timespec t = {shim.number / 1000, (shim.number % 1000) * 1000000L};
        nanosleep(&t, NULL);
        return false;
    }
    default:
        return true;
    }
}

static bool is_call(const char *name)
{
    return shim.on && !is_looking && strcmp(shim.call, name) == 0;
}

static bool on_fd(const char *name, int fd)
{
    char link[64];
    char path[1024];
    if (!is_call(name)) {
        return false;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (n < 0) {
        return false;
    }
    path[n] = '\0';
    return strstr(path, shim.path) != NULL && hit(name, path);
}

static bool on_path(const char *name, int folder, const char *path)
{
    char full[2048] = "";
    if (!is_call(name) || path == NULL) {
        return false;
    }
    if (path[0] != '/') {
        char link[64] = "/proc/self/cwd";
        if (folder != AT_FDCWD) {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        }
        const long n = syscall(SYS_readlinkat, AT_FDCWD, link, full, sizeof full / 2);
        full[n < 0 ? 0 : n] = '\0';
        strcat(full, "/");
    }
    strncat(full, path, sizeof full - strlen(full) - 1);
    return strstr(full, shim.path) != NULL && hit(name, full);
}

static long fail(void)
{
    errno = shim.number;
    return -1;
}

static size_t cut(size_t bytes)
{
    return bytes > 1 ? bytes / 2 : bytes;
}

#define EXPORT __attribute__((visibility("default")))

static int open_common(int folder, const char *path, int flags, mode_t mode)
{
    if (on_path("open", folder, path)) {
        return (int)fail();
    }
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

static mode_t open_mode(int flags, va_list args)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
}

#define DEFINE_OPEN(symbol)                                                                        \
    EXPORT int symbol(const char *path, int flags, ...);                                           \
    EXPORT int symbol(const char *path, int flags, ...)                                            \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        const mode_t mode = open_mode(flags, args);                                                \
        va_end(args);                                                                              \
        return open_common(AT_FDCWD, path, flags, mode);                                           \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)
DEFINE_OPEN(__open_2)
DEFINE_OPEN(__open64_2)

#define DEFINE_OPENAT(symbol)                                                                      \
    EXPORT int symbol(int folder, const char *path, int flags, ...);                               \
    EXPORT int symbol(int folder, const char *path, int flags, ...)                                \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        const mode_t mode = open_mode(flags, args);                                                \
        va_end(args);                                                                              \
        return open_common(folder, path, flags, mode);                                             \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

static ssize_t transfer(const char *name, long number, int fd, uintptr_t data, size_t bytes,
                        off_t offset)
{
    if (on_fd(name, fd)) {
        if (shim.act == ACT_ERRNO) {
            return fail();
        }
        bytes = cut(bytes);
    }
    return syscall(number, fd, data, bytes, offset);
}

#define DEFINE_TRANSFER(symbol, name, number, type)                                                \
    EXPORT ssize_t symbol(int fd, type *data, size_t bytes, off_t offset);                         \
    EXPORT ssize_t symbol(int fd, type *data, size_t bytes, off_t offset)                          \
    {                                                                                              \
        return transfer(name, number, fd, (uintptr_t)data, bytes, offset);                         \
    }
DEFINE_TRANSFER(pread, "pread", SYS_pread64, void)
DEFINE_TRANSFER(pread64, "pread", SYS_pread64, void)
DEFINE_TRANSFER(pwrite, "pwrite", SYS_pwrite64, const void)
DEFINE_TRANSFER(pwrite64, "pwrite", SYS_pwrite64, const void)

EXPORT ssize_t read(int fd, void *data, size_t bytes)
{
    return transfer("read", SYS_read, fd, (uintptr_t)data, bytes, 0);
}
EXPORT ssize_t write(int fd, const void *data, size_t bytes)
{
    return transfer("write", SYS_write, fd, (uintptr_t)data, bytes, 0);
}

/* What Debian's fortified libraries call instead. */
EXPORT ssize_t __pread_chk(int fd, void *data, size_t bytes, off_t offset, size_t room);
EXPORT ssize_t __pread_chk(int fd, void *data, size_t bytes, off_t offset, size_t room)
{
    (void)room;
    return transfer("pread", SYS_pread64, fd, (uintptr_t)data, bytes, offset);
}
EXPORT ssize_t __pread64_chk(int fd, void *data, size_t bytes, off_t offset, size_t room);
EXPORT ssize_t __pread64_chk(int fd, void *data, size_t bytes, off_t offset, size_t room)
{
    (void)room;
    return transfer("pread", SYS_pread64, fd, (uintptr_t)data, bytes, offset);
}
EXPORT ssize_t __read_chk(int fd, void *data, size_t bytes, size_t room);
EXPORT ssize_t __read_chk(int fd, void *data, size_t bytes, size_t room)
{
    (void)room;
    return transfer("read", SYS_read, fd, (uintptr_t)data, bytes, 0);
}

EXPORT int fsync(int fd)
{
    return on_fd("fsync", fd) ? (int)fail() : (int)syscall(SYS_fsync, fd);
}
EXPORT int fdatasync(int fd)
{
    return on_fd("fsync", fd) ? (int)fail() : (int)syscall(SYS_fdatasync, fd);
}
EXPORT int close(int fd)
{
    const bool failing =
        on_fd("close", fd); /* as Linux does: the descriptor is gone all the same */
    const int rc = (int)syscall(SYS_close, fd);
    return failing ? (int)fail() : rc;
}

#define DEFINE_TRUNCATE(symbol)                                                                    \
    EXPORT int symbol(int fd, off_t bytes)                                                         \
    {                                                                                              \
        return on_fd("ftruncate", fd) ? (int)fail() : (int)syscall(SYS_ftruncate, fd, bytes);      \
    }
DEFINE_TRUNCATE(ftruncate)
DEFINE_TRUNCATE(ftruncate64)

#define DEFINE_FALLOCATE(symbol)                                                                   \
    EXPORT int symbol(int fd, int mode, off_t offset, off_t bytes)                                 \
    {                                                                                              \
        return on_fd("fallocate", fd) ? (int)fail()                                                \
                                      : (int)syscall(SYS_fallocate, fd, mode, offset, bytes);      \
    }
DEFINE_FALLOCATE(fallocate)
DEFINE_FALLOCATE(fallocate64)

#define DEFINE_POSIX_FALLOCATE(symbol)                                                             \
    EXPORT int symbol(int fd, off_t offset, off_t bytes)                                           \
    {                                                                                              \
        if (on_fd("fallocate", fd)) {                                                              \
            return shim.number;                                                                    \
        }                                                                                          \
        return syscall(SYS_fallocate, fd, 0, offset, bytes) == 0 ? 0 : errno;                      \
    }
DEFINE_POSIX_FALLOCATE(posix_fallocate)
DEFINE_POSIX_FALLOCATE(posix_fallocate64)

static int rename_common(int from_folder, const char *from, int to_folder, const char *to,
                         unsigned flags)
{
    if (on_path("rename", to_folder, to)) {
        return (int)fail();
    }
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}
EXPORT int rename(const char *from, const char *to)
{
    return rename_common(AT_FDCWD, from, AT_FDCWD, to, 0);
}
EXPORT int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return rename_common(from_folder, from, to_folder, to, 0);
}
EXPORT int renameat2(int from_folder, const char *from, int to_folder, const char *to,
                     unsigned flags)
{
    return rename_common(from_folder, from, to_folder, to, flags);
}
EXPORT int mkdir(const char *path, mode_t mode)
{
    return on_path("mkdir", AT_FDCWD, path) ? (int)fail()
                                            : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

/* Memory: only allocations that the main program itself asks for, not those of its libraries. All
 * others, and those that do not fail, go to the sanitizer's allocator if there is one. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *old, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
#define WEAK __attribute__((weak))
extern WEAK void *__interceptor_malloc(size_t bytes);
extern WEAK void *__interceptor_calloc(size_t n, size_t bytes);
extern WEAK void *__interceptor_realloc(void *old, size_t bytes);
extern WEAK void *__interceptor_aligned_alloc(size_t alignment, size_t bytes);

static void *real_malloc(size_t bytes)
{
    return __interceptor_malloc != NULL ? __interceptor_malloc(bytes) : __libc_malloc(bytes);
}
static void *real_calloc(size_t n, size_t bytes)
{
    return __interceptor_calloc != NULL ? __interceptor_calloc(n, bytes) : __libc_calloc(n, bytes);
}
static void *real_realloc(void *old, size_t bytes)
{
    return __interceptor_realloc != NULL ? __interceptor_realloc(old, bytes)
                                         : __libc_realloc(old, bytes);
}
static void *real_aligned(size_t alignment, size_t bytes)
{
    return __interceptor_aligned_alloc != NULL ? __interceptor_aligned_alloc(alignment, bytes)
                                               : __libc_memalign(alignment, bytes);
}

static bool on_memory(const void *caller)
{
    const uintptr_t at = (uintptr_t)caller;
    return is_call("malloc") && at >= shim.main_lo && at < shim.main_hi && hit("malloc", "");
}
static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

EXPORT void *malloc(size_t bytes)
{
    return on_memory(__builtin_return_address(0)) ? no_memory() : real_malloc(bytes);
}
EXPORT void *calloc(size_t n, size_t bytes)
{
    return on_memory(__builtin_return_address(0)) ? no_memory() : real_calloc(n, bytes);
}
EXPORT void *realloc(void *old, size_t bytes)
{
    return on_memory(__builtin_return_address(0)) ? no_memory() : real_realloc(old, bytes);
}
EXPORT void *aligned_alloc(size_t alignment, size_t bytes)
{
    return on_memory(__builtin_return_address(0)) ? no_memory() : real_aligned(alignment, bytes);
}
EXPORT int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (on_memory(__builtin_return_address(0))) {
        return ENOMEM;
    }
    void *p = real_aligned(alignment, bytes);
    if (p == NULL) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

/* The clock of the day as the main program sees it jumps by years, back and forth: call=clock. */
EXPORT int clock_gettime(clockid_t id, struct timespec *t)
{
    const uintptr_t at = (uintptr_t)__builtin_return_address(0);
    const int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (id == CLOCK_REALTIME && is_call("clock") && at >= shim.main_lo && at < shim.main_hi) {
        t->tv_sec += atomic_fetch_add(&calls, 1) % 2 == 0 ? 100000000 : -100000000;
    }
    return rc;
}
EXPORT time_t time(time_t *out)
{
    const uintptr_t at = (uintptr_t)__builtin_return_address(0);
    struct timespec t = {0};
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &t);
    if (is_call("clock") && at >= shim.main_lo && at < shim.main_hi) {
        t.tv_sec += atomic_fetch_add(&calls, 1) % 2 == 0 ? 100000000 : -100000000;
    }
    if (out != NULL) {
        *out = t.tv_sec;
    }
    return t.tv_sec;
}
