/* The small files of a Hugging Face folder. SPDX-License-Identifier: BSD-3-Clause */
#include "io/checkpoint/companion.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "io/file.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/log.h"

enum { COPY_BYTES = 1 << 18 };
static const int64_t largest_companion = 256 << 20;
static const char card_name[] = "README.md";

bool am_companion_is_name(const char *name)
{
    static const char *const pattern[] = {"config.json",
                                          "generation_config.json",
                                          "tokenizer*",
                                          "special_tokens_map.json",
                                          "vocab.json",
                                          "vocab.txt",
                                          "merges.txt",
                                          "added_tokens.json",
                                          "spiece.model",
                                          "sentencepiece*.model",
                                          "chat_template.json",
                                          "chat_template.jinja",
                                          card_name};
    for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++) {
        if (fnmatch(pattern[i], name, 0) == 0) {
            return true;
        }
    }
    return false;
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const am_companion *)a)->name, ((const am_companion *)b)->name);
}

static am_companion *find(const am_companions *c, const char *name)
{
    const am_companion key = {.name = (char *)(uintptr_t)name}; /* only read */
    return c->n > 0 ? bsearch(&key, c->item, (size_t)c->n, sizeof key, compare) : NULL;
}

/* Takes `name` and `text`, also on an error. */
static int add(am_companions *c, char *name, char *text, int64_t n)
{
    if (name != NULL && c->n == c->capacity) {
        const int64_t more = c->capacity > 0 ? 2 * c->capacity : 16;
        am_companion *wider = realloc(c->item, (size_t)more * sizeof *wider);
        c->item = wider != NULL ? wider : c->item;
        c->capacity = wider != NULL ? more : c->capacity;
    }
    if (name == NULL || c->n == c->capacity) {
        free(name);
        free(text);
        return am_fail(AM_E_NOMEM, "no memory for a list of files");
    }
    c->item[c->n++] = (am_companion){.name = name, .text = text, .n = n};
    qsort(c->item, (size_t)c->n, sizeof *c->item, compare);
    return 0;
}

static int consider(am_companions *out, int fd, const char *name)
{
    struct stat st;
    if (!am_companion_is_name(name) || strcmp(name, card_name) == 0) {
        return 0;
    }
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return am_fail_errno(AM_E_IO, errno, "cannot stat %s/%s", out->folder, name);
    }
    if (!S_ISREG(st.st_mode) || st.st_size > largest_companion) {
        am_warn("%s/%s is %s: not copied to the output", out->folder, name,
                S_ISREG(st.st_mode) ? "larger than 256 MiB" : "a link or no regular file");
        return 0;
    }
    return add(out, am_text("%s", name), NULL, (int64_t)st.st_size);
}

int am_companions_find(const char *folder, am_companions *out)
{
    *out = (am_companions){0};
    DIR *dir = opendir(folder);
    if (dir == NULL && errno == ENOTDIR) {
        return 0;
    }
    if (dir == NULL) {
        return am_fail_errno(AM_E_IO, errno, "cannot look into %s", folder);
    }
    out->folder = am_text("%s", folder);
    int rc = out->folder != NULL ? 0 : AM_E_NOMEM;
    errno = 0;
    for (struct dirent *e = readdir(dir); rc == 0 && e != NULL; e = readdir(dir)) {
        rc = consider(out, dirfd(dir), e->d_name);
        errno = 0;
    }
    if (rc == 0 && errno != 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot list %s", folder);
    }
    closedir(dir);
    return rc;
}

/* Open a file to copy; the descriptor or a code. */
static int open_own(const char *path, int64_t expected)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return am_fail_errno(AM_E_IO, errno, "cannot open %s", path);
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size != expected) {
        close(fd);
        return am_fail(AM_E_IO, "%s changed while it was read", path);
    }
    return fd;
}

void am_companions_drop(am_companions *c, const char *name)
{
    am_companion *item = find(c, name);
    if (item != NULL) {
        free(item->name);
        free(item->text);
        c->n--;
        memmove(item, item + 1, (size_t)(c->item + c->n - item) * sizeof *item);
    }
}

int am_companions_read(const am_companions *c, const char *name, int64_t limit, char **text)
{
    const am_companion *item = find(c, name);
    *text = NULL;
    if (item == NULL) {
        return 0;
    }
    if (item->text != NULL) {
        *text = am_text("%s", item->text);
        return *text != NULL ? 0 : AM_E_NOMEM;
    }
    if (item->n > limit) {
        return am_fail(AM_E_DATA, "%s/%s has %lld bytes, more than %lld", c->folder, name,
                       (long long)item->n, (long long)limit);
    }
    char *path = am_text("%s/%s", c->folder, name);
    int fd = path != NULL ? open_own(path, item->n) : AM_E_NOMEM;
    int rc = fd < 0 ? fd : 0;
    if (rc == 0) {
        *text = am_new(item->n + 1, 1, path);
        rc = *text != NULL ? am_file_read(fd, path, *text, item->n, 0) : AM_E_NOMEM;
        close(fd);
    }
    if (rc != 0) {
        free(*text);
        *text = NULL;
    }
    free(path);
    return rc;
}

int am_companions_set(am_companions *c, const char *name, const char *text)
{
    am_companion *item = find(c, name);
    char *copy = am_text("%s", text);
    if (copy == NULL) {
        return AM_E_NOMEM;
    }
    if (item == NULL) {
        return add(c, am_text("%s", name), copy, (int64_t)strlen(text));
    }
    free(item->text);
    item->text = copy;
    item->n = (int64_t)strlen(text);
    return 0;
}

int am_companions_add(am_companions *c, const char *name, int64_t n, uint64_t digest)
{
    int rc = add(c, am_text("%s", name), NULL, n);
    if (rc == 0) {
        find(c, name)->digest = digest;
    }
    return rc;
}

bool am_companions_has(const am_companions *c, const char *name)
{
    return find(c, name) != NULL;
}

/* Piece by piece, so that a tokenizer of many MiB needs no memory of its size. to < 0: only the
 * digest is made. */
static int copy_pieces(int from, const char *from_path, int to, const char *to_path, int64_t bytes,
                       uint64_t *digest)
{
    char *buffer = am_new(COPY_BYTES, 1, "a copying buffer");
    XXH3_state_t *state = XXH3_createState();
    int rc = 0;
    if (buffer == NULL || state == NULL || XXH3_64bits_reset(state) == XXH_ERROR) {
        rc = am_fail(AM_E_NOMEM, "no memory to copy %s", from_path);
    }
    for (int64_t at = 0; rc == 0 && at < bytes; at += COPY_BYTES) {
        const int64_t n = bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES;
        rc = am_file_read(from, from_path, buffer, n, at);
        AM_KEEP(to >= 0 ? am_file_write(to, to_path, buffer, n, at) : 0);
        if (rc == 0) {
            (void)XXH3_64bits_update(state, buffer, (size_t)n); /* fails for NULL only */
        }
    }
    *digest = rc == 0 ? XXH3_64bits_digest(state) : 0;
    XXH3_freeState(state);
    free(buffer);
    return rc;
}

static int copy_file(const am_companions *c, am_companion *item, const char *to_path)
{
    char *from_path = am_text("%s/%s", c->folder, item->name);
    int from = from_path != NULL ? open_own(from_path, item->n) : AM_E_NOMEM;
    int to = from >= 0 ? am_file_create(to_path) : from;
    int rc = to < 0 ? to : copy_pieces(from, from_path, to, to_path, item->n, &item->digest);
    if (to >= 0) {
        const int closed = am_file_sync_close(to, to_path);
        rc = rc != 0 ? rc : closed;
    }
    if (from >= 0) {
        close(from);
    }
    free(from_path);
    return rc;
}

int am_companion_digest(const am_companion *item, const char *folder, uint64_t *digest)
{
    char *path = am_text("%s/%s", folder, item->name);
    int fd = path != NULL ? open_own(path, item->n) : AM_E_NOMEM;
    int rc = fd < 0 ? fd : copy_pieces(fd, path, -1, NULL, item->n, digest);
    if (fd >= 0) {
        close(fd);
    }
    free(path);
    return rc;
}

int am_companions_write(am_companions *c, const char *folder)
{
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < c->n; i++) {
        am_companion *item = &c->item[i];
        char *path = am_text("%s/%s", folder, item->name);
        if (path == NULL) {
            return AM_E_NOMEM;
        }
        if (item->text == NULL) {
            rc = copy_file(c, item, path);
        } else {
            rc = am_file_dump(path, item->text, item->n);
            item->digest = XXH3_64bits(item->text, (size_t)item->n);
        }
        free(path);
    }
    return rc;
}

void am_companions_free(am_companions *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        free(c->item[i].name);
        free(c->item[i].text);
    }
    free(c->item);
    free(c->folder);
    *c = (am_companions){0};
}
