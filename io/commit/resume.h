/* Going on with an output that an interrupted job left: OUT.partial and OUT.journal.
 * For the writer (io/commit/writer.h) alone.
 *
 * The plan's blob is the layout and the digest of the frame: all bytes of the laid-out files that
 * belong to no tensor (headers, gaps). What is on disk is trusted only after the frame and every
 * block that a record names have been read and have the digests that they should have.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_COMMIT_RESUME_H
#define AM_IO_COMMIT_RESUME_H

#include "io/commit/journal.h"
#include "io/checkpoint/layout.h"

/* What rank 0 found, the same on all ranks once it has been sent. */
typedef struct am_resume_state {
    int64_t attempt;  /* of this job, from 1 */
    uint64_t plan;    /* digest */
    bool has_journal; /* else: the output is made in one go */
    bool is_resumed;  /* the layout is that of the interrupted job */
    bool is_finished; /* the output is there: nothing is left to do */
} am_resume_state;

/** Look for an interrupted job on `partial`. state->is_resumed: it is the same job; then `layout`
 * is its layout. If it is another job that has got somewhere, or it has been damaged: see errors.
 *
 * Local, rank 0. identity: this job; fresh: do not go on. Damaged state is not gone on with, and
 * that is said. Errors: AM_E_CREATE it is another job, and in what they differ; AM_E_IO;
 * AM_E_NOMEM. */
int am_resume_find(const char *partial, const char *journal, const char *identity, bool fresh,
                   am_resume_state *state, am_layout *layout);
/** Write the plan of a new output whose files are laid out and synced. Local, rank 0. */
int am_resume_begin(const char *partial, const char *journal, const char *identity,
                    const am_layout *layout, am_resume_state *state);

#endif
