/* Saved sums of `stats`: see sums.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/stats/sums.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/checkpoint/checkpoint.h"
#include "io/commit/digest.h"
#include "io/commit/publish.h"
#include "io/file.h"
#include "jobs/training/snapshot.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"

static const char job_key[] = "allmerge.job", batches_key[] = "allmerge.batches",
                  saves_key[] = "allmerge.saves";

/* Path of a turn beside `output`, owned. NULL with AM_E_NOMEM in the slot. */
static char *path_of(const char *output, int turn)
{
    char *clean = am_clean_path(output);
    char *path = clean != NULL ? am_text("%s.sums-%c.h5", clean, 'a' + turn) : NULL;
    free(clean);
    return path;
}

/* ---- going on ---- */

/* Is there a sound file of this job? Its numbers; saves is 0 if not. */
static int look_all(const am_sums *s, int turn, int64_t *saves, int64_t *batches)
{
    am_ckpt *ckpt = NULL;
    bool is_sound = false;
    int rc = AM_OK;
    *saves = *batches = 0;
    AM_TRY(am_ckpt_check_all(s->statistics->comm, s->path[turn], &is_sound));
    if (!is_sound) {
        goto cleanup;
    }
    AM_TRY(am_ckpt_open_all(s->statistics->comm, s->path[turn], &ckpt));
    const char *job = am_meta_get(am_ckpt_meta(ckpt), job_key);
    if (job != NULL && strcmp(job, am_hex_of(s->job).text) == 0) {
        *saves = am_snapshot_get(am_ckpt_meta(ckpt), saves_key);
        *batches = am_snapshot_get(am_ckpt_meta(ckpt), batches_key);
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

static int load_all(const am_sums *s, int turn)
{
    am_ckpt *ckpt = NULL;
    am_source source = {0};
    int rc = AM_OK;
    AM_TRY(am_ckpt_open_all(s->statistics->comm, s->path[turn], &ckpt));
    rc = am_ckpt_source(ckpt, 0, &source);
    AM_KEEP(am_statistics_load(s->statistics, &source));
    AM_AGREE(s->statistics->comm);
    am_info("going on after %" PRId64 " batches, from %s", s->batches, s->path[turn]);
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

int am_sums_open_all(am_statistics *statistics, const char *output, uint64_t job, bool fresh,
                     double save_every, am_sums *out)
{
    int64_t saves[AM_SUMS_TURNS] = {0}, batches[AM_SUMS_TURNS] = {0};
    int rc = AM_OK;
    *out = (am_sums){.statistics = statistics, .job = job};
    for (int turn = 0; turn < AM_SUMS_TURNS; turn++) {
        out->path[turn] = path_of(output, turn);
        AM_KEEP(out->path[turn] == NULL ? AM_E_NOMEM : AM_OK);
    }
    AM_AGREE(statistics->comm);
    am_pace_start(&out->pace, save_every);
    am_pace_expect(&out->pace, am_tensor_table_bytes(&statistics->layout.tensors));
    for (int turn = 0; turn < AM_SUMS_TURNS && !fresh; turn++) {
        AM_TRY(look_all(out, turn, &saves[turn], &batches[turn]));
    }
    const int newest = saves[1] > saves[0];
    out->saves = saves[newest];
    out->batches = out->saved = batches[newest];
    if (out->saves > 0) { /* the same on all ranks */
        AM_TRY(load_all(out, newest));
    }
cleanup:
    return rc;
}

void am_sums_free(am_sums *sums)
{
    for (int turn = 0; turn < AM_SUMS_TURNS; turn++) {
        free(sums->path[turn]);
    }
    *sums = (am_sums){0};
}

/* ---- saving ---- */

int am_sums_save_all(am_sums *s)
{
    const double start = am_seconds();
    const char *path = s->path[s->saves % AM_SUMS_TURNS];
    am_meta meta = {0};
    am_ckpt_writer *writer = NULL;
    am_sink sink = {0};
    int rc = AM_OK;
    if (s->saved == s->batches) {
        return AM_OK; /* the same on all ranks */
    }
    rc = am_meta_set(&meta, job_key, am_hex_of(s->job).text);
    AM_KEEP(am_snapshot_set(&meta, batches_key, s->batches));
    AM_KEEP(am_snapshot_set(&meta, saves_key, s->saves + 1));
    AM_AGREE(s->statistics->comm);
    const am_ckpt_options options = {.overwrite = true, .meta = &meta};
    AM_TRY(am_ckpt_create_all(s->statistics->comm, path, &s->statistics->layout.tensors, &options,
                              &writer));
    rc = am_ckpt_sink(writer, &sink);
    AM_KEEP(am_statistics_store(s->statistics, 0, &sink));
    AM_TRY(am_ckpt_publish_all(&writer, rc));
    s->saves++;
    s->saved = s->batches;
    am_pace_saved(&s->pace, start);
cleanup:
    am_meta_free(&meta);
    return rc;
}

int am_sums_save_if_due_all(am_sums *s)
{
    bool is_due = am_pace_is_due(&s->pace); /* rank 0 decides for all, by its clock */
    int rc = AM_OK;
    AM_TRY(am_bcast_all(s->statistics->comm, 0, &is_due, sizeof is_due));
    if (is_due) {
        AM_TRY(am_sums_save_all(s));
    }
cleanup:
    return rc;
}

/* One of the files with all that stands beside it. */
static int remove_file(const char *path)
{
    am_publish publish = {.lock_fd = -1};
    int rc = am_publish_begin(&publish, path, false, true, NULL);
    AM_KEEP(am_publish_clear(&publish));
    if (rc == AM_OK && ((unlink(publish.manifest) != 0 && errno != ENOENT) ||
                        (unlink(path) != 0 && errno != ENOENT))) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot remove %s", path);
    }
    am_publish_abandon(&publish);
    return rc;
}

int am_sums_remove_all(MPI_Comm comm, const char *output)
{
    int rank, rc = AM_OK;
    MPI_Comm_rank(comm, &rank);
    for (int turn = 0; turn < AM_SUMS_TURNS && rank == 0; turn++) {
        char *path = path_of(output, turn);
        AM_KEEP(path == NULL ? AM_E_NOMEM : remove_file(path));
        free(path);
    }
    return am_agree_all(comm, rc);
}
