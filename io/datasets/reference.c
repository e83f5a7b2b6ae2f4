/* reference-LL: the text of Debian Reference in seven languages, one task each, as bytes: the same
 * content and nearly the same size, so that the tasks differ by language alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/dataset/prepare.h"
#include "mpi/error.h"

#define REFERENCE_PACKAGES                                                                         \
    "debian-reference-de debian-reference-en debian-reference-es debian-reference-fr "             \
    "debian-reference-it debian-reference-ja debian-reference-pt"

enum { CONTEXT = 256, LARGEST = 64 << 20 };

static const char *const languages[] = {
    "reference-de", "reference-en", "reference-es", "reference-fr",
    "reference-it", "reference-ja", "reference-pt", NULL};

static int prepare(const char *task, const char *const *roots, uint64_t seed, am_prepared *out)
{
    const char *language = strrchr(task, '-') + 1, *path = NULL;
    char name[64], file[64];
    uint8_t *text = NULL;
    int64_t bytes = 0;
    am_packages packages = {0};
    int rc = 0;
    (void)snprintf(name, sizeof name, "debian-reference-%s", language);
    (void)snprintf(file, sizeof file, "/debian-reference.%s.txt.gz", language);
    AM_TRY(am_packages_open(roots, name, &packages));
    AM_TRY(am_package_file(&packages, file, &path));
    AM_TRY(am_read_whole(path, LARGEST, &text, &bytes));
    AM_TRY(am_prepared_text(out, text, bytes, CONTEXT, seed, task));
    AM_TRY(am_prepared_origin(out, &packages, NULL, "GPL-2+"));
cleanup:
    free(text);
    am_packages_free(&packages);
    return rc;
}

const am_dataset_source am_dataset_source_reference = {
    .name = "reference",
    .help = "Debian Reference as bytes, samples of 256, label: the next byte",
    .packages = REFERENCE_PACKAGES,
    .licence = "GPL-2+",
    .tasks = languages,
    .optional = true,
    .prepare = prepare,
};
