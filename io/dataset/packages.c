/* Files of Debian packages, unpacked below a folder or installed.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "io/dataset/packages.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include "mpi/arena.h"
#include "mpi/error.h"

enum { LINE_BYTES = 8192, PATH_DEPTH = 16, MAX_NAMED = 8 /* missing packages in a message */ };

/* ---- small helpers ---- */

static int path_join(char **out, const char *folder, const char *name)
{
    if (asprintf(out, "%s/%s", folder, name) < 0) {
        *out = NULL;
        return am_fail(AM_E_NOMEM, "no memory for a path below %s", folder);
    }
    return 0;
}

static bool is_regular(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static int add_file(am_package *package, char *path) /* path is moved */
{
    if (package->n == package->capacity) {
        int64_t capacity = package->capacity > 0 ? 2 * package->capacity : 64;
        char **file = realloc(package->file, (size_t)capacity * sizeof *file);
        if (file == NULL) {
            free(path);
            return am_fail(AM_E_NOMEM, "no memory for the files of %s", package->name);
        }
        package->file = file;
        package->capacity = capacity;
    }
    package->file[package->n++] = path;
    return 0;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void package_free(am_package *package)
{
    for (int64_t i = 0; i < package->n; i++) {
        free(package->file[i]);
    }
    free(package->file);
    free(package->name);
    free(package->version);
    *package = (am_package){0};
}

/* First line of a small text file without its newline; false if there is none. */
static bool first_line(const char *path, char line[LINE_BYTES])
{
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return false;
    }
    bool is_read = fgets(line, LINE_BYTES, f) != NULL;
    (void)fclose(f);
    if (is_read) {
        line[strcspn(line, "\r\n")] = '\0';
    }
    return is_read && line[0] != '\0';
}

/* ---- an unpacked package: ROOT/NAME/VERSION and ROOT/NAME/... ---- */

static bool unpacked_version(const char *root, const char *name, char line[LINE_BYTES])
{
    char path[LINE_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s/VERSION", root, name);
    return n > 0 && n < (int)sizeof path && first_line(path, line);
}

static int list_folder(am_package *package, const char *folder, int depth)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return am_fail_errno(AM_E_IO, errno, "cannot list %s", folder);
    }
    int rc = depth <= PATH_DEPTH ? 0 : am_fail(AM_E_DATA, "%s: folders nest too deep", folder);
    while (rc == 0) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            if (errno != 0) {
                rc = am_fail_errno(AM_E_IO, errno, "cannot list %s", folder);
            }
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        char *path = NULL;
        struct stat st;
        rc = path_join(&path, folder, entry->d_name);
        if (rc == 0 && lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            rc = list_folder(package, path, depth + 1);
            free(path);
        } else if (rc == 0 && is_regular(path)) {
            rc = add_file(package, path);
        } else {
            free(path); /* links and special files hold nothing of their own */
        }
    }
    (void)closedir(dir);
    return rc;
}

/* ---- an installed package: the lists of dpkg ---- */

static bool installed_list(const char *name, char path[LINE_BYTES])
{
    int n = snprintf(path, LINE_BYTES, "/var/lib/dpkg/info/%s.list", name);
    return n > 0 && n < LINE_BYTES && is_regular(path);
}

static int list_installed(am_package *package, const char *list)
{
    FILE *f = fopen(list, "r");
    if (f == NULL) {
        return am_fail_errno(AM_E_IO, errno, "cannot read %s", list);
    }
    int rc = 0;
    char line[LINE_BYTES];
    while (rc == 0 && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (is_regular(line)) {
            char *path = strdup(line);
            rc = path != NULL ? add_file(package, path)
                              : am_fail(AM_E_NOMEM, "no memory for the files of %s", package->name);
        }
    }
    if (rc == 0 && ferror(f)) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot read %s", list);
    }
    (void)fclose(f);
    return rc;
}

/* Version of an installed package from the status file: "Package: NAME" ... "Version: V". */
static void installed_version(const char *name, char version[LINE_BYTES])
{
    (void)snprintf(version, LINE_BYTES, "unknown");
    FILE *f = fopen("/var/lib/dpkg/status", "r");
    if (f == NULL) {
        return;
    }
    char line[LINE_BYTES];
    bool is_here = false;
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "Package: ", 9) == 0) {
            is_here = strcmp(line + 9, name) == 0;
        } else if (is_here && strncmp(line, "Version: ", 9) == 0) {
            (void)snprintf(version, LINE_BYTES, "%s", line + 9);
            break;
        }
    }
    (void)fclose(f);
}

/* ---- one package, many packages ---- */

/* Fill `package` from one root; *is_found tells whether the root has it. */
static int open_at(const char *root, const char *name, am_package *package, bool *is_found)
{
    int rc = 0;
    char version[LINE_BYTES], list[LINE_BYTES];
    *is_found =
        root[0] == '\0' ? installed_list(name, list) : unpacked_version(root, name, version);
    if (!*is_found) {
        return 0;
    }
    if (root[0] == '\0') {
        installed_version(name, version);
    }
    package->name = strdup(name);
    package->version = strdup(version);
    if (package->name == NULL || package->version == NULL) {
        return am_fail(AM_E_NOMEM, "no memory for package %s", name);
    }
    if (root[0] == '\0') {
        AM_TRY(list_installed(package, list));
    } else {
        char *folder = NULL;
        AM_TRY(path_join(&folder, root, name));
        rc = list_folder(package, folder, 0);
        free(folder);
        AM_TRY(rc);
    }
    if (package->n > 0) {
        qsort(package->file, (size_t)package->n, sizeof *package->file, compare_paths);
    }
cleanup:
    return rc;
}

bool am_package_present(const char *const *roots, const char *name)
{
    char text[LINE_BYTES];
    for (int64_t i = 0; roots[i] != NULL; i++) {
        if (roots[i][0] == '\0' ? installed_list(name, text)
                                : unpacked_version(roots[i], name, text)) {
            return true;
        }
    }
    return false;
}

static int64_t count_words(const char *text)
{
    int64_t n = 0;
    for (const char *c = text; *c != '\0'; c++) {
        n += *c != ' ' && (c == text || c[-1] == ' ');
    }
    return n;
}

static int fail_missing(const char *const *roots, const char *missing, int64_t n)
{
    char where[1024] = "";
    for (int64_t i = 0; roots[i] != NULL; i++) {
        size_t used = strlen(where);
        (void)snprintf(where + used, sizeof where - used, "%s%s", i > 0 ? " nor " : "",
                       roots[i][0] != '\0' ? roots[i] : "installed");
    }
    return am_fail(AM_E_NOINPUT,
                   "%lld package%s needed but neither in %s:%s%s; run `jobs/fetch-data FOLDER` and "
                   "give --sources FOLDER",
                   (long long)n, n == 1 ? " is" : "s are", where, missing,
                   n > MAX_NAMED ? " ..." : "");
}

int am_packages_open(const char *const *roots, const char *names, am_packages *out)
{
    int rc = 0;
    int64_t n_missing = 0;
    char *copy = strdup(names), *missing = NULL, *state = NULL;
    *out = (am_packages){0};
    out->p = am_new(count_words(names) + 1, sizeof *out->p, "list of packages");
    missing = am_new((int64_t)strlen(names) + 2, 1, "list of packages");
    if (copy == NULL || out->p == NULL || missing == NULL) {
        AM_TRY(am_fail(AM_E_NOMEM, "no memory for the list of packages"));
    }
    for (char *w = strtok_r(copy, " ", &state); w != NULL; w = strtok_r(NULL, " ", &state)) {
        bool is_found = false;
        for (int64_t i = 0; roots[i] != NULL && !is_found; i++) {
            am_package *package = &out->p[out->n];
            rc = open_at(roots[i], w, package, &is_found);
            if (is_found) {
                out->n++; /* counted before the check, so that cleanup frees it */
            }
            AM_TRY(rc);
        }
        if (!is_found && n_missing++ < MAX_NAMED) {
            strcat(strcat(missing, " "), w);
        }
    }
    if (n_missing > 0) {
        AM_TRY(fail_missing(roots, missing, n_missing));
    }
cleanup:
    free(copy);
    free(missing);
    if (rc != 0) {
        am_packages_free(out);
    }
    return rc;
}

void am_packages_free(am_packages *packages)
{
    for (int64_t i = 0; i < packages->n; i++) {
        package_free(&packages->p[i]);
    }
    free(packages->p);
    *packages = (am_packages){0};
}

int am_package_file(const am_packages *packages, const char *suffix, const char **path)
{
    size_t m = strlen(suffix);
    for (int64_t i = 0; i < packages->n; i++) {
        for (int64_t j = 0; j < packages->p[i].n; j++) {
            size_t n = strlen(packages->p[i].file[j]);
            if (n >= m && strcmp(packages->p[i].file[j] + n - m, suffix) == 0) {
                *path = packages->p[i].file[j];
                return 0;
            }
        }
    }
    return am_fail(AM_E_NOINPUT,
                   "package %s is here but its file %s is not (container images leave out "
                   "documentation): fetch with `jobs/fetch-data FOLDER` and give the folder as "
                   "--sources",
                   packages->n > 0 ? packages->p[0].name : "?", suffix);
}

char *am_packages_describe(const am_packages *packages, const bool *used)
{
    size_t bytes = 1;
    for (int64_t i = 0; i < packages->n; i++) {
        bytes += strlen(packages->p[i].name) + strlen(packages->p[i].version) + 3;
    }
    char *text = am_new((int64_t)bytes, 1, "list of packages"), *end = text;
    for (int64_t i = 0; text != NULL && i < packages->n; i++) {
        if (used == NULL || used[i]) {
            end += sprintf(end, "%s%s %s", end > text ? ", " : "", packages->p[i].name,
                           packages->p[i].version);
        }
    }
    return text;
}

int am_read_whole(const char *path, int64_t limit, uint8_t **bytes, int64_t *n)
{
    int rc = 0;
    int64_t used = 0, capacity = 0;
    uint8_t *data = NULL;
    errno = 0;
    gzFile f = gzopen(path, "rb");
    if (f == NULL) {
        return am_fail_errno(AM_E_NOINPUT, errno, "cannot open %s", path);
    }
    for (;;) {
        if (used == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 1 << 16;
            uint8_t *grown = realloc(data, (size_t)capacity);
            if (grown == NULL) {
                AM_TRY(am_fail(AM_E_NOMEM, "no memory to read %s", path));
            }
            data = grown;
        }
        int64_t want = capacity - used < (1 << 30) ? capacity - used : 1 << 30;
        int got = gzread(f, data + used, (unsigned)want);
        if (got < 0) {
            int code = 0;
            const char *text = gzerror(f, &code);
            AM_TRY(code == Z_ERRNO ? am_fail_errno(AM_E_IO, errno, "cannot read %s", path)
                                   : am_fail(AM_E_DATA, "%s: damaged gzip data: %s", path, text));
        }
        if (got == 0) {
            break;
        }
        used += got;
        if (used > limit) {
            AM_TRY(am_fail(AM_E_DATA, "%s: longer than %lld bytes, not the file expected", path,
                           (long long)limit));
        }
    }
    *bytes = data;
    *n = used;
    data = NULL;
cleanup:
    free(data);
    if (gzclose_r(f) != Z_OK && rc == 0) { /* a gzip stream that ends early is seen only here */
        free(*bytes);
        *bytes = NULL;
        rc = am_fail(AM_E_DATA, "%s: gzip data ends early", path);
    }
    return rc;
}
