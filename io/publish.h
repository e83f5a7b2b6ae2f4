/* How an output appears: laid out under a temporary name beside it, under a lock, then renamed.
 *
 *   OUT.lock      who writes; locked while the job lives, removed at the end
 *   OUT.partial   the output in the making (a file or a folder)
 *   OUT.manifest.json, or manifest.json inside a folder: in place before the final name is
 *
 * A dead job leaves OUT.partial and an unlocked OUT.lock; the next job on OUT removes and reuses
 * them. Local functions, rank 0 except am_publish_attach. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_PUBLISH_H
#define AM_IO_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_publish {
    char *final, *partial, *lock, *manifest; /* owned paths */
    int lock_fd;                             /* -1: none */
    bool is_folder, overwrite;
} am_publish;

/** Take the lock and make room: refuses an output that exists (unless overwrite), is one of the
 * inputs (same device and inode), or is being written by another job (named in the message, after
 * waiting a few seconds for ranks of a dead job); removes what a dead job left.
 * inputs  NULL-terminated paths, may be NULL. Errors: AM_E_CREATE, AM_E_IO, AM_E_NOMEM. */
int am_publish_begin(am_publish *p, const char *path, bool is_folder, bool overwrite,
                     const char *const *inputs);
/** Any rank, after begin: hold a shared lock so that a rank that outlives its job still counts.
 * Returns a descriptor to close at the end, or -1 where locks do not work. */
int am_publish_attach(const char *path);
/** Put the manifest in place, rename the output to its name, sync the folder, release the lock.
 * All data is on disk already. Errors: AM_E_IO, AM_E_CREATE (somebody made the output meanwhile).
 */
int am_publish_commit(am_publish *p, const char *manifest, int64_t n);
/** Remove temporaries and release the lock; for a zeroed or released struct nothing. */
void am_publish_abandon(am_publish *p);

/** Manifest path of a checkpoint, malloc'ed; NULL: AM_E_NOMEM in the slot. */
char *am_publish_manifest_path(const char *path, bool is_folder);
/** Path without trailing slashes, malloc'ed. */
char *am_publish_clean_path(const char *path);

#endif
