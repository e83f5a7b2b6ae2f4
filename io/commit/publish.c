/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/commit/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "io/checkpoint/companion.h"
#include "io/file.h"
#include "io/commit/journal.h"
#include "io/commit/manifest.h"
#include "mpi/error.h"

enum { WAIT_STEP_MS = 50, WAIT_STEPS = 60 }; /* a killed launcher's ranks live on for about 1 s */
enum { BYTE_JOB = 0, BYTE_RANKS = 1 };       /* what is locked in the lock file */

/* ---- the lock ---- */

/* 0: locked; EAGAIN: held by another; else: locks do not work here. */
static int lock_byte(int fd, int command, short type, off_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int result;
    do {
        result = fcntl(fd, command, &lock);
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
        return errno == EACCES ? EAGAIN : errno;
    }
    return command == F_OFD_GETLK && lock.l_type != F_UNLCK ? EAGAIN : 0;
}

/* The file that fd names is still the one at `path` (its last holder may have removed it). */
static bool is_current(int fd, const char *path)
{
    struct stat mine, there;
    return fstat(fd, &mine) == 0 && lstat(path, &there) == 0 && mine.st_dev == there.st_dev &&
           mine.st_ino == there.st_ino;
}

static int refuse_held(const am_publish *p, int fd)
{
    char holder[256] = {0};
    ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
    if (n <= 0) {
        snprintf(holder, sizeof holder, "another job");
    }
    for (char *c = holder; *c != '\0'; c++) {
        *c = (unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c;
    }
    return am_fail(AM_E_CREATE, "%s is being written by %s: wait for it or choose another output",
                   p->final, holder);
}

static void write_holder(int fd)
{
    char host[128] = "?", text[256];
    if (gethostname(host, sizeof host - 1) != 0) {
        snprintf(host, sizeof host, "?");
    }
    int n = snprintf(text, sizeof text, "process %ld on %s", (long)getpid(), host);
    /* The text only serves another job's message. */
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        errno = 0;
    }
}

/* One try. 0: taken; 1: try again; negative: an error. */
static int try_lock(am_publish *p, bool is_last_try)
{
    int fd = open(p->lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) {
        return am_fail_errno(AM_E_CREATE, errno, "cannot create %s (is the folder writable?)",
                             p->lock);
    }
    int state = lock_byte(fd, F_OFD_SETLK, F_WRLCK, BYTE_JOB);
    if (state == 0) {
        state = lock_byte(fd, F_OFD_GETLK, F_WRLCK, BYTE_RANKS);
    }
    int result = 1;
    if (state == 0 && is_current(fd, p->lock)) {
        write_holder(fd);
        p->lock_fd = fd;
        return 0;
    }
    if (state == EAGAIN && is_last_try) {
        result = refuse_held(p, fd);
    } else if (state != 0 && state != EAGAIN) {
        /* No locks on this file system: the file itself is the lease, never taken by force. */
        struct stat st;
        if (fstat(fd, &st) == 0 && st.st_size == 0) {
            write_holder(fd);
            p->lock_fd = fd;
            return 0;
        }
        result = am_fail(AM_E_CREATE,
                         "%s exists and this file system has no locks: remove it if no other job "
                         "writes %s",
                         p->lock, p->final);
    }
    close(fd);
    return result;
}

static int take_lock(am_publish *p)
{
    int result = 1;
    for (int step = 0; result == 1; step++) {
        result = try_lock(p, step >= WAIT_STEPS);
        if (result == 1) {
            nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_MS * 1000000L}, NULL);
        }
    }
    return result;
}

int am_publish_attach(const char *path)
{
    char *clean = am_clean_path(path);
    char *lock = clean != NULL ? am_text("%s.lock", clean) : NULL;
    int fd = lock != NULL ? open(lock, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fd >= 0 && lock_byte(fd, F_OFD_SETLK, F_RDLCK, BYTE_RANKS) != 0) {
        close(fd);
        fd = -1;
    }
    free(lock);
    free(clean);
    return fd;
}

static void release(am_publish *p)
{
    if (p->lock_fd >= 0) {
        unlink(p->lock);
        close(p->lock_fd);
        p->lock_fd = -1;
    }
    free(p->final);
    free(p->partial);
    free(p->lock);
    free(p->manifest);
    free(p->journal);
    *p = (am_publish){.lock_fd = -1};
}

/* ---- removal: only names that allmerge makes, never a tree ---- */

/* written: the companions of a finished output; NULL: the folder is a temporary one, where every
 * name of a companion is ours. */
static bool is_ours(const char *name, const am_companions *written)
{
    static const char *const pattern[] = {"model.safetensors", "model-[0-9]*-of-[0-9]*.safetensors",
                                          "model.safetensors.index.json", "manifest.json"};
    for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++) {
        if (fnmatch(pattern[i], name, 0) == 0) {
            return true;
        }
    }
    return written != NULL ? am_companions_has(written, name) : am_companion_is_name(name);
}

/* Visit a folder: with `remove` delete its files, else only look for foreign ones. */
static int sweep_folder(const char *path, const am_companions *written, bool remove)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return am_fail_errno(AM_E_CREATE, errno, "cannot look into %s", path);
    }
    int rc = 0;
    for (struct dirent *entry = readdir(folder); rc == 0 && entry != NULL;
         entry = readdir(folder)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (!is_ours(entry->d_name, written)) {
            rc = am_fail(AM_E_CREATE,
                         "%s holds %s, which allmerge did not write: move it away or choose "
                         "another output",
                         path, entry->d_name);
        } else if (remove && unlinkat(dirfd(folder), entry->d_name, 0) != 0) {
            rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s/%s", path, entry->d_name);
        }
    }
    closedir(folder);
    return rc;
}

static int remove_path(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? 0 : am_fail_errno(AM_E_CREATE, errno, "cannot stat %s", path);
    }
    if (S_ISDIR(st.st_mode)) {
        int rc = sweep_folder(path, NULL, true);
        if (rc == 0 && rmdir(path) != 0) {
            rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", path);
        }
        return rc;
    }
    return unlink(path) == 0 ? 0 : am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", path);
}

/* ---- begin ---- */

static int check_folder(const char *path)
{
    char *folder = am_folder_of(path);
    if (folder == NULL) {
        return AM_E_NOMEM;
    }
    struct stat st;
    int rc = 0;
    if (stat(folder, &st) != 0) {
        rc = am_fail_errno(AM_E_CREATE, errno, "the output folder %s", folder);
    } else if (!S_ISDIR(st.st_mode)) {
        rc = am_fail(AM_E_CREATE, "%s is not a folder", folder);
    }
    free(folder);
    return rc;
}

static int check_not_input(const char *path, const char *const *inputs)
{
    struct stat output, input;
    if (stat(path, &output) != 0) {
        return 0;
    }
    for (int64_t i = 0; inputs != NULL && inputs[i] != NULL; i++) {
        if (stat(inputs[i], &input) == 0 && input.st_dev == output.st_dev &&
            input.st_ino == output.st_ino) {
            return am_fail(AM_E_CREATE, "%s is also an input (%s): choose another output", path,
                           inputs[i]);
        }
    }
    return 0;
}

/* A folder to replace holds nothing but what an output of ours has; its manifest names the files
 * beside the tensors. */
static int check_contents(const char *path)
{
    am_manifest manifest = {0};
    if (am_manifest_read(path, true, &manifest) != 0) {
        am_error_clear(); /* without a sound one none of them is ours */
    }
    int rc = sweep_folder(path, &manifest.files, false);
    am_manifest_free(&manifest);
    return rc;
}

int am_publish_check(const am_publish *p)
{
    struct stat st;
    if (lstat(p->final, &st) != 0) {
        return 0;
    }
    if (!p->overwrite) {
        return am_fail(AM_E_CREATE, "%s exists: add --overwrite to replace it", p->final);
    }
    if (S_ISDIR(st.st_mode) != p->is_folder) {
        return am_fail(AM_E_CREATE, "%s is %s: remove it or choose another output", p->final,
                       p->is_folder ? "not a folder" : "a folder");
    }
    return p->is_folder ? check_contents(p->final) : 0;
}

int am_publish_begin(am_publish *p, const char *path, bool is_folder, bool overwrite,
                     const char *const *inputs)
{
    int rc = 0;
    *p = (am_publish){.lock_fd = -1, .is_folder = is_folder, .overwrite = overwrite};
    p->final = am_clean_path(path);
    if (p->final == NULL || p->final[0] == '\0') {
        rc = am_fail(AM_E_CREATE, "the output path is empty");
        goto cleanup;
    }
    p->partial = am_text("%s.partial", p->final);
    p->lock = am_text("%s.lock", p->final);
    p->journal = am_text("%s.journal", p->final);
    p->manifest = am_manifest_path(p->final, is_folder);
    if (p->partial == NULL || p->lock == NULL || p->manifest == NULL || p->journal == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    AM_TRY(check_folder(p->final));
    AM_TRY(check_not_input(p->final, inputs));
    AM_TRY(check_not_input(p->partial, inputs));
    AM_TRY(check_not_input(p->lock, inputs));
    AM_TRY(take_lock(p));
cleanup:
    if (rc != 0) {
        release(p);
    }
    return rc;
}

/* The file beside the output; `ending`: more of its name. */
static char *path_beside(const am_publish *p, const char *ending)
{
    char *folder = am_folder_of(p->final);
    char *path = folder != NULL ? am_text("%s/%s%s", folder, p->beside, ending) : NULL;
    free(folder);
    return path;
}

int am_publish_clear(am_publish *p)
{
    int rc = am_journal_remove(p->journal);
    AM_KEEP(remove_path(p->partial));
    if (p->beside != NULL) {
        char *beside = path_beside(p, ".partial");
        AM_KEEP(beside != NULL ? remove_path(beside) : AM_E_NOMEM);
        free(beside);
    }
    return rc;
}

/* ---- commit ---- */

/* Rename without replacing, where the file system can promise that. */
static int rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
        return 0;
    }
    if (errno == EEXIST) {
        return am_fail(AM_E_CREATE, "%s appeared while it was being made: nothing was replaced",
                       to);
    }
    if ((errno == EINVAL || errno == ENOSYS) && rename(from, to) == 0) {
        return 0;
    }
    return am_fail_errno(AM_E_IO, errno, "cannot rename %s to %s", from, to);
}

static int rename_over(const am_publish *p)
{
    struct stat st;
    if (lstat(p->final, &st) != 0) {
        return rename_new(p->partial, p->final);
    }
    if (!p->is_folder) {
        return rename(p->partial, p->final) == 0
                   ? 0
                   : am_fail_errno(AM_E_IO, errno, "cannot rename %s to %s", p->partial, p->final);
    }
    /* The old folder takes the temporary name in the same instant, then goes. */
    if (renameat2(AT_FDCWD, p->partial, AT_FDCWD, p->final, RENAME_EXCHANGE) != 0) {
        return am_fail_errno(AM_E_IO, errno, "cannot exchange %s and %s", p->partial, p->final);
    }
    return remove_path(p->partial);
}

static int place_manifest(const am_publish *p, const char *manifest, int64_t n)
{
    int rc = 0;
    if (p->is_folder) {
        char *path = am_text("%s/manifest.json", p->partial);
        rc = path == NULL ? AM_E_NOMEM : am_file_dump(path, manifest, n);
        AM_KEEP(am_file_sync_folder(path));
        free(path);
        return rc;
    }
    char *path = am_text("%s.partial", p->manifest);
    if (path == NULL) {
        return AM_E_NOMEM;
    }
    AM_TRY(remove_path(path));
    AM_TRY(am_file_dump(path, manifest, n));
    if (rename(path, p->manifest) != 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot rename %s to %s", path, p->manifest);
        goto cleanup;
    }
    AM_TRY(am_file_sync_folder(p->manifest));
cleanup:
    if (rc != 0) {
        unlink(path);
    }
    free(path);
    return rc;
}

/* Between here and the rename of the output no output is there. */
static int place_beside(const am_publish *p)
{
    char *path = path_beside(p, ""), *partial = path_beside(p, ".partial");
    int rc = 0;
    AM_TRY(path != NULL && partial != NULL ? 0 : AM_E_NOMEM);
    AM_TRY(am_file_dump(partial, p->beside_text, (int64_t)strlen(p->beside_text)));
    if (p->overwrite) {
        AM_TRY(remove_path(p->final));
        AM_TRY(am_file_sync_folder(p->final));
    }
    if (rename(partial, path) != 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot rename %s to %s", partial, path);
        goto cleanup;
    }
    AM_TRY(am_file_sync_folder(path));
cleanup:
    if (rc != 0 && partial != NULL) {
        unlink(partial);
    }
    free(partial);
    free(path);
    return rc;
}

/* What stands beside an output that is not there. */
static void remove_parts(const am_publish *p)
{
    struct stat st;
    if (p->is_folder || lstat(p->final, &st) == 0) {
        return;
    }
    char *path = p->beside != NULL ? path_beside(p, "") : NULL;
    unlink(p->manifest);
    if (path != NULL) {
        unlink(path);
    }
    free(path);
}

int am_publish_commit(am_publish *p, const char *manifest, int64_t n)
{
    int rc = place_manifest(p, manifest, n);
    if (rc == 0 && p->beside != NULL) {
        rc = place_beside(p);
    }
    if (rc == 0) {
        rc = p->overwrite ? rename_over(p) : rename_new(p->partial, p->final);
    }
    if (rc != 0) {
        remove_parts(p);
        return rc;
    }
    rc = am_file_sync_folder(p->final);
    AM_KEEP(am_journal_remove(p->journal));
    release(p);
    return rc;
}

void am_publish_abandon(am_publish *p)
{
    if (p->final != NULL) {
        (void)am_publish_clear(p); /* the error that led here counts */
        release(p);
    }
}

void am_publish_suspend(am_publish *p)
{
    if (p->final != NULL) {
        release(p);
    }
}

void am_publish_tidy(const char *path, bool is_folder)
{
    am_publish p = {.lock_fd = -1};
    char *clean = am_clean_path(path);
    char *lock = clean != NULL ? am_text("%s.lock", clean) : NULL;
    char *journal = clean != NULL ? am_text("%s.journal", clean) : NULL;
    const bool is_left =
        lock != NULL && journal != NULL && (access(lock, F_OK) == 0 || access(journal, F_OK) == 0);
    if (is_left && am_publish_begin(&p, clean, is_folder, true, NULL) == 0) {
        am_publish_abandon(&p);
    }
    am_error_clear();
    free(clean);
    free(lock);
    free(journal);
}
