/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/commit/digest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "io/checkpoint/format.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"

int am_digests_create(const am_tensor_table *tensors, am_digests *out)
{
    am_digests d = {.n_tensors = tensors->n};
    d.first = am_new(tensors->n + 1, sizeof *d.first, "block digests");
    if (d.first == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < tensors->n; i++) {
        d.first[i + 1] = d.first[i] + am_part_units(tensors->t[i].numel, AM_BLOCK);
    }
    d.n_blocks = d.first[tensors->n];
    d.value = am_new(d.n_blocks + 1, sizeof *d.value, "block digests");
    d.known = am_new(d.n_blocks + 1, sizeof *d.known, "block digests");
    if (d.value == NULL || d.known == NULL) {
        am_digests_free(&d);
        return AM_E_NOMEM;
    }
    *out = d;
    return 0;
}

void am_digests_free(am_digests *digests)
{
    free(digests->first);
    free(digests->value);
    free(digests->known);
    *digests = (am_digests){0};
}

int am_digests_share_all(MPI_Comm comm, am_digests *digests)
{
    int rc = 0;
    /* One rank knows a block and the others hold 0: the integer sum is the value. */
    AM_TRY(am_sum_i64_all(comm, digests->value, digests->n_blocks));
    AM_TRY(am_sum_i64_all(comm, digests->known, digests->n_blocks));
    for (int64_t b = 0; b < digests->n_blocks; b++) {
        if (digests->known[b] > 1) { /* the same on every rank */
            AM_TRY(am_fail(AM_E_BUG, "block %lld was written by %lld ranks", (long long)b,
                           (long long)digests->known[b]));
        }
    }
cleanup:
    return rc;
}

uint64_t am_digests_tensor(const am_digests *digests, int64_t tensor)
{
    int64_t lo = digests->first[tensor], hi = digests->first[tensor + 1];
    return XXH3_64bits(digests->value + lo, (size_t)(hi - lo) * sizeof *digests->value);
}

int am_digest_stream_create(am_digest_stream *stream)
{
    *stream = (am_digest_stream){.state = XXH3_createState(), .tensor = -1};
    return stream->state != NULL ? 0 : am_fail(AM_E_NOMEM, "out of memory for a checksum");
}

void am_digest_stream_free(am_digest_stream *stream)
{
    XXH3_freeState(stream->state);
    stream->state = NULL;
}

void am_digest_stream_feed(am_digest_stream *stream, am_digests *digests, int64_t index,
                           const am_tensor *tensor, int64_t lo, int64_t n, const void *data)
{
    const char *bytes = data;
    int64_t element = am_dtype_bytes(tensor->dtype), hi = lo + n;
    while (lo < hi) {
        int64_t block = lo / AM_BLOCK;
        int64_t end =
            (block + 1) * AM_BLOCK < tensor->numel ? (block + 1) * AM_BLOCK : tensor->numel;
        int64_t stop = hi < end ? hi : end;
        bool starts = lo == block * AM_BLOCK;
        if (starts) {
            XXH3_64bits_reset(stream->state);
        }
        if (starts || (stream->tensor == index && stream->next == lo)) {
            XXH3_64bits_update(stream->state, bytes, (size_t)((stop - lo) * element));
            stream->tensor = index;
            stream->next = stop;
            if (stop == end) {
                int64_t b = digests->first[index] + block;
                digests->value[b] = (int64_t)XXH3_64bits_digest(stream->state);
                digests->known[b] = 1;
                stream->tensor = -1;
            }
        } else {
            stream->tensor = -1;
        }
        bytes += (stop - lo) * element;
        lo = stop;
    }
}

am_hex am_hex_of(uint64_t digest)
{
    am_hex h;
    snprintf(h.text, sizeof h.text, "%016" PRIx64, digest);
    return h;
}

uint64_t am_digest_bytes(const void *data, int64_t n)
{
    return XXH3_64bits(data, (size_t)n);
}

int am_digest_meta(const am_meta *meta, uint64_t *out)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        return am_fail(AM_E_NOMEM, "out of memory for a checksum");
    }
    XXH3_64bits_reset(state);
    for (int64_t i = 0; meta != NULL && i < meta->n; i++) {
        if (strncmp(meta->key[i], AM_META_RESERVED, strlen(AM_META_RESERVED)) != 0) {
            XXH3_64bits_update(state, meta->key[i], strlen(meta->key[i]) + 1);
            XXH3_64bits_update(state, meta->value[i], strlen(meta->value[i]) + 1);
        }
    }
    *out = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return 0;
}
