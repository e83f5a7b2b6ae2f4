/* Whether a checkpoint holds what its manifest says. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/checkpoint.h"
#include "io/commit/digest.h"
#include "io/commit/manifest.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/partition.h"
#include "mpi/reduce.h"

enum { STEP = AM_CHUNK };

/* The tensors' digests of the manifest, in the order of the table. Rank 0. */
static int read_digests(const am_ckpt *ckpt, uint64_t *wanted, bool *is_sound)
{
    am_manifest manifest = {0};
    const am_tensor_table *t = am_ckpt_tensors(ckpt);
    const bool is_folder = strcmp(am_ckpt_format(ckpt), "hf") == 0;
    const int rc = am_manifest_read(am_ckpt_path(ckpt), is_folder, &manifest);
    *is_sound = rc == 0 && manifest.tensors.n == t->n;
    for (int64_t i = 0; *is_sound && i < t->n; i++) {
        *is_sound = strcmp(manifest.tensors.t[i].name, t->t[i].name) == 0;
        wanted[i] = manifest.digest[i];
    }
    am_manifest_free(&manifest);
    if (rc == AM_E_DATA || rc == AM_E_NOINPUT) {
        am_error_clear();
        return 0;
    }
    return rc;
}

static int digest_tensor(const am_source *source, int64_t i, am_digest_stream *stream,
                         am_digests *digests, unsigned char *room)
{
    const am_tensor *t = &source->tensors->t[i];
    int rc = 0;
    for (int64_t lo = 0; rc == 0 && lo < t->numel; lo += STEP) {
        const int64_t n = t->numel - lo < STEP ? t->numel - lo : STEP;
        rc = source->load_raw(source->self, i, lo, n, room);
        if (rc == 0) {
            am_digest_stream_feed(stream, digests, i, t, lo, n, room);
        }
    }
    return rc;
}

static int compare_all(MPI_Comm comm, am_ckpt *ckpt, bool *is_sound)
{
    int rc = 0, rank, size;
    int64_t bad = 0;
    am_source source = {0};
    am_digests digests = {0};
    am_digest_stream stream = {0};
    const int64_t n = am_ckpt_tensors(ckpt)->n;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    uint64_t *wanted = am_new(n + 1, sizeof *wanted, "digests");
    unsigned char *room = am_new(STEP, sizeof(double), "digests");
    rc = wanted == NULL || room == NULL ? AM_E_NOMEM : 0;
    AM_KEEP(am_digests_create(am_ckpt_tensors(ckpt), &digests));
    AM_KEEP(am_digest_stream_create(&stream));
    AM_KEEP(am_ckpt_source(ckpt, 0, &source));
    if (rank == 0) {
        AM_KEEP(read_digests(ckpt, wanted, is_sound));
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, is_sound, (int64_t)sizeof *is_sound));
    AM_TRY(am_bcast_all(comm, 0, wanted, n * (int64_t)sizeof *wanted));
    for (int64_t i = rank; *is_sound && rc == 0 && i < n; i += size) {
        rc = digest_tensor(&source, i, &stream, &digests, room);
        bad += rc == 0 && am_digests_tensor(&digests, i) != wanted[i];
    }
    AM_AGREE(comm);
    AM_TRY(am_sum_i64_all(comm, &bad, 1));
    *is_sound = *is_sound && bad == 0;
cleanup:
    am_digest_stream_free(&stream);
    am_digests_free(&digests);
    free(wanted);
    free(room);
    return rc;
}

int am_ckpt_check_all(MPI_Comm comm, const char *path, bool *is_sound)
{
    am_ckpt *ckpt = NULL;
    *is_sound = false;
    int rc = am_ckpt_open_all(comm, path, &ckpt);
    if (rc == AM_E_DATA || rc == AM_E_NOINPUT) {
        am_error_clear();
        return 0;
    }
    if (rc == 0) {
        rc = compare_all(comm, ckpt, is_sound);
    }
    am_ckpt_close(&ckpt);
    return rc;
}
