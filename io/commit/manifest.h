/* OUT.manifest.json: what an output holds and what it was made from, with a digest for each tensor.
 * No time stamps, host names or rank counts: the same job gives the same manifest.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_COMMIT_MANIFEST_H
#define AM_IO_COMMIT_MANIFEST_H

#include "io/commit/digest.h"

/* What is known of a manifest when the output is created (io/commit/provenance.h). */
typedef struct am_manifest_head {
    const char *format;  /* borrowed: format name */
    char *recipe_digest; /* owned; NULL: no recipe */
    char *inputs_json;   /* owned; a JSON array */
    char *grid_json;     /* owned; what depends on a process grid, NULL: nothing */
    int64_t shard_bytes; /* asked for; 0: not a folder */
} am_manifest_head;

/** Manifest path of a checkpoint, malloc'ed; NULL: AM_E_NOMEM in the slot. */
char *am_manifest_path(const char *path, bool is_folder);

void am_manifest_head_free(am_manifest_head *head);

/** The manifest's text, malloc'ed. companions: written already; may be NULL. Errors: AM_E_NOMEM. */
int am_manifest_write(const am_manifest_head *head, const am_tensor_table *tensors,
                      const am_meta *meta, const am_digests *digests,
                      const am_companions *companions, char **text, int64_t *n);

/** Whether the manifest of the output at `path` names the same version, format, recipe and inputs
 * as `head`. Local. A damaged or missing one does not; no error. */
bool am_manifest_is_of(const char *path, bool is_folder, const am_manifest_head *head);

/* A manifest read back. */
typedef struct am_manifest {
    am_tensor_table tensors;
    uint64_t *digest;       /* [tensors.n] owned */
    uint64_t meta, content; /* digests of the metadata and of everything */
    am_companions files;    /* names, bytes and digests of what lies beside the tensors */
} am_manifest;

/** Read the manifest of the checkpoint at `path`. Local.
 * Errors: AM_E_NOINPUT (there is none; nothing in the message slot), AM_E_DATA (damaged). */
int am_manifest_read(const char *path, bool is_folder, am_manifest *out);
void am_manifest_free(am_manifest *manifest);

#endif
