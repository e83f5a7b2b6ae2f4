/* The writer of a checkpoint: what its parts share. writer.c creates it, done.c goes on with what
 * an interrupted job left, sink.c stores blocks, commit.c publishes. For these files alone; what
 * others call is in io/checkpoint/checkpoint.h. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_COMMIT_WRITER_H
#define AM_IO_COMMIT_WRITER_H

#include "io/checkpoint/checkpoint.h"
#include "io/checkpoint/format.h"
#include "io/commit/digest.h"
#include "io/commit/manifest.h"
#include "io/commit/publish.h"
#include "io/commit/resume.h"

/* Bytes of one file. */
typedef struct am_file_range {
    int64_t file, at, n;
} am_file_range;

struct am_ckpt_writer {
    MPI_Comm comm; /* borrowed */
    int rank, size;
    const am_format *format;
    am_layout layout;
    char *root;         /* the temporary name */
    char **file_path;   /* [n_files] owned */
    int *fd;            /* [n_files] */
    am_meta meta;       /* rank 0: for the manifest */
    am_publish publish; /* rank 0 */
    am_manifest_head head;
    am_companions *companions; /* rank 0, borrowed; NULL: none */
    int attached;              /* shared lock, -1: none */
    unsigned char *buffer;     /* [piece_bytes] */
    int64_t piece_bytes;
    am_file_range piece;   /* what is in the buffer: stores that follow each other in a file */
    am_file_range written; /* not yet sent to the disk */
    int failed;            /* first error of a write, kept until publish */
    am_digests digests;
    am_digest_stream stream;
    int64_t stored; /* elements */

    am_resume_state resume;
    am_journal journal;
    bool *is_dirty; /* [n_files] written since the last sync */
    bool *done;     /* [n_blocks, same] need not be stored */
    int64_t n_done, done_elements;
};

/** Close and free everything; an output that is neither published nor kept for a later job is
 * removed. NULL: nothing. Local. */
void am_writer_free(am_ckpt_writer *w);

/* ---- done.c ---- */

/** Find what earlier attempts did, checked against the data, and open this rank's journal.
 * Collective [w->comm]. */
int am_writer_resume_all(am_ckpt_writer *w, const char *path, double save_every);
/** Digest of one block from the file, into w->digests. Local. Errors: AM_E_IO. */
int am_writer_reread(am_ckpt_writer *w, int64_t tensor, int64_t block);

/* ---- sink.c ---- */

/** Write what is in the buffer, and records of it if they are due. Local. Returns w->failed. */
int am_writer_put_out(am_ckpt_writer *w);
/** Sync the data, then write the records of it. Local. Errors: AM_E_IO, AM_E_CREATE. */
int am_writer_save(am_ckpt_writer *w);

#endif
