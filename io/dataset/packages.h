/* Where the files of a Debian package are: unpacked below a folder (jobs/fetch-data makes
 * FOLDER/PACKAGE/usr/... and FOLDER/PACKAGE/VERSION) or installed on the system (root "").
 * Files of a package are always listed in bytewise order of their path inside the package.
 * All calls are local. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_DATASET_PACKAGES_H
#define AM_IO_DATASET_PACKAGES_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_package {
    char *name, *version; /* owned */
    int64_t n, capacity;
    char **file; /* [n] owned: regular files, readable paths, sorted */
} am_package;

typedef struct am_packages {
    int64_t n;
    am_package *p; /* [n] owned, in the order asked for */
} am_packages;

/** Find every package of `names` (space separated) below the first root that has it.
 *
 * roots  NULL-terminated; "" means installed on this system (the lists of /var/lib/dpkg)
 * Errors: AM_E_NOINPUT naming the missing packages (the first eight) and the command that fetches
 * them; AM_E_NOMEM; AM_E_IO. On error *out is empty. */
int am_packages_open(const char *const *roots, const char *names, am_packages *out);
void am_packages_free(am_packages *packages);

/** True if package `name` is below one of the roots. */
bool am_package_present(const char *const *roots, const char *name);

/** The file whose path ends in `suffix`. Errors: AM_E_NOINPUT naming file and package: container
 * images often leave out /usr/share/doc of installed packages. */
int am_package_file(const am_packages *packages, const char *suffix, const char **path);

/** "name version, name version" owned by the caller, NULL when out of memory; `used` [n] selects
 * packages, NULL: all. */
char *am_packages_describe(const am_packages *packages, const bool *used);

/** Read a whole file, through zlib if it is gzipped, of at most `limit` bytes; *bytes is owned.
 * Errors: AM_E_NOINPUT; AM_E_DATA (longer than limit, damaged gzip); AM_E_IO; AM_E_NOMEM. */
int am_read_whole(const char *path, int64_t limit, uint8_t **bytes, int64_t *n);

#endif
