/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/commit/finished.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/checkpoint/format.h"
#include "io/commit/manifest.h"
#include "io/commit/provenance.h"
#include "io/file.h"
#include "mpi/error.h"

/* Whether an input was written after the output's manifest. */
static bool is_newer(const char *const *inputs, const struct stat *manifest)
{
    const int64_t made = (int64_t)manifest->st_mtim.tv_sec * 1000000000 + manifest->st_mtim.tv_nsec;
    bool newer = false;
    for (int64_t i = 0; inputs != NULL && inputs[i] != NULL && !newer; i++) {
        am_input_facts facts;
        newer = am_input_facts_read(inputs[i], &facts) != 0 ||
                (!facts.has_content && facts.modified_ns > made);
    }
    return newer;
}

int am_output_is_finished(const char *path, const am_ckpt_options *options, bool *is_finished)
{
    int rc = 0;
    struct stat st;
    am_manifest_head head = {0};
    am_layout layout = {0};
    *is_finished = false;
    const am_format *format = am_format_of_output(path);
    char *clean = am_clean_path(path);
    char *manifest = clean != NULL ? am_manifest_path(clean, format->is_folder) : NULL;
    if (manifest == NULL) {
        rc = AM_E_NOMEM;
        goto cleanup;
    }
    if (access(clean, F_OK) != 0 || stat(manifest, &st) != 0) {
        goto cleanup; /* ordinary */
    }
    AM_TRY(am_provenance_find(format->name, options, &head));
    *is_finished = am_manifest_is_of(clean, format->is_folder, &head) &&
                   !is_newer(options->inputs, &st) && format->read_layout(clean, &layout) == 0;
    am_error_clear();
cleanup:
    am_layout_free(&layout);
    am_manifest_head_free(&head);
    free(manifest);
    free(clean);
    return rc;
}
