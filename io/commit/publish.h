/* How an output appears: laid out under a temporary name beside it, under a lock, then renamed.
 *
 *   OUT.lock      who writes; locked while the job lives, removed at the end
 *   OUT.partial   the output in the making (a file or a folder)
 *   OUT.journal   which of its blocks are done (io/commit/journal.h), for jobs that can go on
 *   OUT.manifest.json, or manifest.json inside a folder: in place before the final name is
 *   a file beside OUT that is part of it (the configuration of an adapter): likewise, and an OUT
 *                 that is replaced goes before it does, so that no OUT ever stands by another's
 *
 * A dead job leaves OUT.partial, OUT.journal and an unlocked OUT.lock; the next job on OUT goes on
 * from them or removes them. Local functions, rank 0 except am_publish_attach.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_COMMIT_PUBLISH_H
#define AM_IO_COMMIT_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_publish {
    char *final, *partial, *lock, *manifest, *journal; /* owned paths */
    const char *beside, *beside_text;                  /* borrowed; NULL: none */
    int lock_fd;                                       /* -1: none */
    bool is_folder, overwrite;
} am_publish;

/** Take the lock: refuses an output that is one of the inputs (same device and inode), or is being
 * written by another job (named in the message, after waiting a few seconds for ranks of a dead
 * job). What is there stays: see am_publish_check.
 * inputs  NULL-terminated paths, may be NULL. Errors: AM_E_CREATE, AM_E_IO, AM_E_NOMEM. */
int am_publish_begin(am_publish *p, const char *path, bool is_folder, bool overwrite,
                     const char *const *inputs);
/** With the lock: refuse an output that exists, unless overwrite, and then one that is not ours to
 * replace. Errors: AM_E_CREATE, AM_E_NOMEM. */
int am_publish_check(const am_publish *p);
/** Make room for a new output: remove what a dead job left, the journal first. Errors: AM_E_CREATE,
 * AM_E_NOMEM. */
int am_publish_clear(am_publish *p);
/** Any rank, after begin: hold a shared lock so that a rank that outlives its job still counts.
 * Returns a descriptor to close at the end, or -1 where locks do not work. */
int am_publish_attach(const char *path);
/** Put the manifest in place, rename the output to its name, sync the folder, remove the journal,
 * release the lock. All data is on disk already. Errors: AM_E_IO, AM_E_CREATE (somebody made the
 * output meanwhile).
 */
int am_publish_commit(am_publish *p, const char *manifest, int64_t n);
/** Remove temporaries and release the lock; for a zeroed or released struct nothing. */
void am_publish_abandon(am_publish *p);
/** Release the lock alone: a later job may go on from the temporaries. */
void am_publish_suspend(am_publish *p);

/** Remove what a job that died just after its output was in place left beside it; nothing if a job
 * holds the lock. Errors are not errors here. */
void am_publish_tidy(const char *path, bool is_folder);

#endif
