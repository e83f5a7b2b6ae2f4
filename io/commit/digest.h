/* Checksums of tensors. A block (2^20 elements by global index) has the XXH3-64 of its bytes; a
 * tensor's digest is the XXH3-64 of its blocks' digests in order, 8 little-endian bytes each. So it
 * depends on the values alone, never on ranks, batches or the file format.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_COMMIT_DIGEST_H
#define AM_IO_COMMIT_DIGEST_H

#include <mpi.h>
#include "io/checkpoint/checkpoint.h"

typedef struct am_digests {
    int64_t n_tensors, n_blocks;
    int64_t *first; /* [n_tensors+1] first block of each tensor */
    int64_t *value; /* [n_blocks] bits of the block's digest, 0 while unknown here */
    int64_t *known; /* [n_blocks] 0 or 1; after sharing: how many ranks knew it */
} am_digests;

/** Errors: AM_E_NOMEM. */
int am_digests_create(const am_tensor_table *tensors, am_digests *out);
void am_digests_free(am_digests *digests);
/** Combine what the ranks know; every rank then holds all values. Collective [comm]. */
int am_digests_share_all(MPI_Comm comm, am_digests *digests);
/** Digest of one tensor, all its blocks known. */
uint64_t am_digests_tensor(const am_digests *digests, int64_t tensor);

/* Digests of blocks from consecutive pieces of a tensor's bytes, in any cut. */
typedef struct am_digest_stream {
    void *state;          /* owned */
    int64_t tensor, next; /* the piece that would continue; tensor -1: none */
} am_digest_stream;
int am_digest_stream_create(am_digest_stream *stream); /* AM_E_NOMEM */
void am_digest_stream_free(am_digest_stream *stream);
/** Feed elements [lo, lo+n) of a tensor. Blocks that were fed whole and in order become known. */
void am_digest_stream_feed(am_digest_stream *stream, am_digests *digests, int64_t index,
                           const am_tensor *tensor, int64_t lo, int64_t n, const void *data);

/* A digest as text, 16 digits. */
typedef struct am_hex {
    char text[17];
} am_hex;
am_hex am_hex_of(uint64_t digest);

uint64_t am_digest_bytes(const void *data, int64_t n);
/** Digest of the string metadata that users see (keys reserved by allmerge left out). */
int am_digest_meta(const am_meta *meta, uint64_t *out);

#endif
