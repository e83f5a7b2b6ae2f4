/* Checkpoints: named tensors on disk, in any format of io/formats. Metadata is read and laid out by
 * rank 0 alone and broadcast; data is pread and pwritten by every rank in its own extents.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_CHECKPOINT_H
#define AM_IO_CHECKPOINT_CHECKPOINT_H

#include <mpi.h>
#include <stdbool.h>
#include "io/checkpoint/companion.h"
#include "mpi/block.h"

/* String metadata: key -> value, sorted by key. */
typedef struct am_meta {
    int64_t n, capacity;
    char **key, **value; /* owned */
} am_meta;
int am_meta_set(am_meta *meta, const char *key, const char *value); /* copies; AM_E_NOMEM */
const char *am_meta_get(const am_meta *meta, const char *key);      /* NULL if absent */
void am_meta_free(am_meta *meta);

/* ---- reading ---- */
typedef struct am_ckpt am_ckpt;

/** Open PATH: `.safetensors`, `.h5`/`.hdf5`, or a folder in Hugging Face layout (by content, not
 * name).
 *
 * Collective [comm]; path [same]. Rank 0 parses and checks everything (RELIABILITY.md 4.5), the
 * table and the extents are broadcast, each rank opens the data files read-only on first use.
 * Errors: AM_E_NOINPUT no such file; AM_E_DATA with file and rule; AM_E_IO. */
int am_ckpt_open_all(MPI_Comm comm, const char *path, am_ckpt **out);
void am_ckpt_close(am_ckpt **ckpt);
const am_tensor_table *am_ckpt_tensors(const am_ckpt *ckpt); /* borrowed */
const am_meta *am_ckpt_meta(const am_ckpt *ckpt);            /* borrowed */
const char *am_ckpt_path(const am_ckpt *ckpt);
const char *am_ckpt_format(const am_ckpt *ckpt); /* "safetensors", "h5", "hf" */
/** A block source over the checkpoint; valid until the close. What is staged is announced to the
 * system, which reads it ahead, and read a piece at a time when it is loaded. held_bytes: what
 * `hold` may keep in memory (0: a default of 64 MiB). Local. Memory: 256 KiB and what is held. */
int am_ckpt_source(am_ckpt *ckpt, int64_t held_bytes, am_source *out);

/* ---- writing ---- */
typedef struct am_ckpt_writer am_ckpt_writer;

typedef struct am_ckpt_options {
    bool overwrite;            /* replace an existing output (by rename); else AM_E_CREATE */
    bool accept_finished;      /* an output that is there is no error if this very job made it: same
                                  recipe, inputs and format, by its manifest, and no input written
                                  since; not with overwrite */
    int64_t shard_bytes;       /* folders only: largest shard, 0: 5e9 */
    const am_meta *meta;       /* written into the file; may be NULL */
    const char *recipe;        /* recipe text for the manifest; may be NULL */
    const char *grid;          /* [root] JSON: what depends on a process grid; NULL: nothing does */
    const char *const *inputs; /* NULL-terminated input paths for the manifest; may be NULL */
    am_companions *companions; /* [root] folders only: files beside the tensors; borrowed until
                                  publish; may be NULL */
    const char *beside, *beside_text; /* [root] files only: name and text of a file in the output's
                                         folder that is part of it: whoever finds the output finds
                                         its own; borrowed until publish; may be NULL */
    const char
        *identity; /* [root] what the job is (io/commit/identity.h): an interrupted one is gone on
                      with; NULL: it starts over, and leaves nothing when it is stopped */
    bool fresh;    /* start over all the same */
    double save_every; /* seconds between records of what is done; AM_PACE_AUTO: by their cost */
} am_ckpt_options;

/** Lay out an output at PATH (form by name: .h5, .safetensors, else a folder) under a temporary
 * name beside it, with all space reserved.
 *
 * Collective [comm]; arguments [same]. Takes the output's lock first. If options->identity is that
 * of an interrupted job on this output, its layout is used, its blocks are checked by their digests
 * (all ranks read) and those that are sound are done: am_ckpt_block_is_done. With
 * options->accept_finished, *out is NULL if the output is finished, by another job before this one
 * or while it waited for the lock.
 * Errors: AM_E_CREATE (folder missing, not writable, exists, locked by another job, is an input, or
 * another job was interrupted: says in what they differ);
 * AM_E_IO (no space: says how much is needed). On error nothing is left behind, but for what an
 * interrupted job had left. */
int am_ckpt_create_all(MPI_Comm comm, const char *path, const am_tensor_table *tensors,
                       const am_ckpt_options *options, am_ckpt_writer **out);
/** Blocks of an interrupted job that need not be stored again, how many, and of how many. [same] */
bool am_ckpt_block_is_done(const am_ckpt_writer *writer, int64_t tensor, int64_t block);
int64_t am_ckpt_blocks_done(const am_ckpt_writer *writer, int64_t *blocks);
/** All of a tensor is going to be stored again. Local; call it on every rank. */
void am_ckpt_redo(am_ckpt_writer *writer, int64_t tensor);
/** A block sink over the output. Local. Each store is written by pwrite, block digests are kept. A
 * rank stores whole blocks (or whole chunks: then digests are made by re-reading at publish). */
int am_ckpt_sink(am_ckpt_writer *writer, am_sink *out);
/** fsync data on every rank, write the manifest, rename, fsync the folder; frees the writer.
 *
 * Collective [comm]. rc [rank] result of the writing so far: if any rank passes an error nothing is
 * published, temporaries are removed and the agreed code is returned. With options->identity, a job
 * that is stopped (AM_E_STOPPED) or that fails for want of memory or by an I/O error leaves what it
 * has done for the next attempt. *writer is NULL afterwards. */
int am_ckpt_publish_all(am_ckpt_writer **writer, int rc);

/* ---- whole small checkpoints in memory (training jobs) ---- */

/** Write f32 or f64 parameters held in one contiguous block (tensor i at params + offset[i]
 * elements, same on every rank) as a checkpoint. Collective [comm]; each rank writes its slice. */
int am_ckpt_save_all(MPI_Comm comm, const char *path, const am_tensor_table *tensors,
                     const int64_t *offset, const void *params, const am_ckpt_options *options);
/** Whether the checkpoint at PATH is whole and holds what its manifest says; all of it is read, in
 * turn by the ranks. One that is missing, damaged or without a manifest is not; that is no error.
 * Collective [comm]. Errors: AM_E_IO, AM_E_NOMEM. */
int am_ckpt_check_all(MPI_Comm comm, const char *path, bool *is_sound);

/** The reverse: every tensor of `tensors` must be present in PATH with the same shape (any float
 * dtype, converted). Collective [comm]; every rank ends with all values. Errors: AM_E_DATA listing
 * all mismatches. */
int am_ckpt_load_all(MPI_Comm comm, const char *path, const am_tensor_table *tensors,
                     const int64_t *offset, void *params);

#endif
