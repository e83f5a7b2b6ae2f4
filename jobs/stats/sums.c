/* Saved sums of `stats`: see sums.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/stats/sums.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "io/checkpoint/checkpoint.h"
#include "io/commit/identity.h"
#include "io/commit/publish.h"
#include "io/file.h"
#include "jobs/training/snapshot.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"

enum { JOB = -1 }; /* no turn */
static const char batches_key[] = "allmerge.batches", saves_key[] = "allmerge.saves";
static const int64_t most_text = (int64_t)64 << 20;

/* Path of a turn beside `output`, or of what the job is; owned. NULL with AM_E_NOMEM in the slot.
 */
static char *path_of(const char *output, int turn)
{
    char *clean = am_clean_path(output), *path = NULL;
    if (clean != NULL) {
        path = turn == JOB ? am_text("%s.sums.json", clean)
                           : am_text("%s.sums-%c.h5", clean, 'a' + turn);
    }
    free(clean);
    return path;
}

/* ---- files of rank 0 ---- */

/* Is there a state, or one in the making? */
static bool has_state(const char *path)
{
    static const char *const suffix[] = {"", ".partial", ".lock", ".manifest.json"};
    bool has = false;
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix && !has; i++) {
        char *name = am_text("%s%s", path, suffix[i]);
        has = name == NULL || access(name, F_OK) == 0;
        free(name);
    }
    return has;
}

/* A state with all that stands beside it. */
static int remove_state(const char *path)
{
    am_publish publish = {.lock_fd = -1};
    if (!has_state(path)) {
        return AM_OK; /* without a lock: the folder may be read-only */
    }
    int rc = am_publish_begin(&publish, path, false, true, NULL);
    AM_KEEP(am_publish_clear(&publish));
    if (rc == AM_OK && ((unlink(publish.manifest) != 0 && errno != ENOENT) ||
                        (unlink(path) != 0 && errno != ENOENT))) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot remove %s", path);
    }
    am_publish_abandon(&publish);
    return rc;
}

/* What the job is goes first, so that no state is ever taken for that of another job. */
static int remove_files(const char *output)
{
    static const int order[] = {JOB, 0, 1};
    int rc = AM_OK;
    for (size_t i = 0; i < sizeof order / sizeof *order && rc == AM_OK; i++) {
        char *path = path_of(output, order[i]);
        if (path == NULL) {
            rc = AM_E_NOMEM;
        } else if (order[i] != JOB) {
            rc = remove_state(path);
        } else if (unlink(path) != 0 && errno != ENOENT) {
            rc = am_fail_errno(AM_E_IO, errno, "cannot remove %s", path);
        }
        free(path);
    }
    return rc;
}

/* Is there state of this very job? That of another one is refused, or taken away. */
static int recognise(am_sums *s, const char *output, am_sums_other other)
{
    char what[1024], *there = NULL;
    int64_t bytes = 0;
    int rc =
        other == AM_SUMS_FRESH ? AM_E_NOINPUT : am_file_slurp(s->job, most_text, &there, &bytes);
    if (rc == AM_E_NOINPUT) {
        am_error_clear();
        return remove_files(output);
    }
    if (rc != AM_OK) {
        return rc;
    }
    const int differences = am_identity_compare(there, s->identity, what, sizeof what);
    free(there);
    if (differences < 0) {
        am_warn("%s is damaged: starting over", s->job);
        am_error_clear();
        return remove_files(output);
    }
    if (differences > 0 && other == AM_SUMS_REPLACE) {
        return remove_files(output);
    }
    if (differences > 0) {
        return am_fail(AM_E_CREATE,
                       "%s is what an interrupted job left, and this job is another one: %s; run "
                       "that job again, or add --fresh to start over",
                       s->job, what);
    }
    s->is_told = true;
    return AM_OK;
}

/* Write down what the job is, before its first state. */
static int tell(am_sums *s)
{
    char *partial = am_text("%s.partial", s->job);
    int rc = partial == NULL ? AM_E_NOMEM : AM_OK;
    if (rc == AM_OK && unlink(partial) != 0 && errno != ENOENT) {
        rc = am_fail_errno(AM_E_CREATE, errno, "cannot remove %s", partial);
    }
    AM_KEEP(am_file_dump(partial, s->identity, (int64_t)strlen(s->identity)));
    if (rc == AM_OK && rename(partial, s->job) != 0) {
        rc = am_fail_errno(AM_E_IO, errno, "cannot write %s", s->job);
    }
    AM_KEEP(am_file_sync_folder(s->job));
    s->is_told = rc == AM_OK;
    free(partial);
    return rc;
}

/* ---- going on ---- */

/* The numbers of a state that is sound; saves is 0 if there is none. */
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
    *saves = am_snapshot_get(am_ckpt_meta(ckpt), saves_key);
    *batches = am_snapshot_get(am_ckpt_meta(ckpt), batches_key);
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

/* From the newer sound state, if there is one of this job. */
static int go_on_all(am_sums *s)
{
    int64_t saves[AM_SUMS_TURNS] = {0}, batches[AM_SUMS_TURNS] = {0};
    bool is_told = s->is_told;
    int rc = AM_OK;
    AM_TRY(am_bcast_all(s->statistics->comm, 0, &is_told, sizeof is_told));
    for (int turn = 0; turn < AM_SUMS_TURNS && is_told; turn++) {
        AM_TRY(look_all(s, turn, &saves[turn], &batches[turn]));
    }
    const int newest = saves[1] > saves[0];
    s->saves = saves[newest];
    s->batches = s->saved = batches[newest];
    if (s->saves > 0) { /* the same on all ranks */
        AM_TRY(load_all(s, newest));
    }
cleanup:
    return rc;
}

int am_sums_open_all(am_statistics *statistics, const char *output, const char *identity,
                     am_sums_other other, double save_every, am_sums *out)
{
    int rank;
    MPI_Comm_rank(statistics->comm, &rank);
    *out = (am_sums){.statistics = statistics, .identity = identity, .job = path_of(output, JOB)};
    int rc = out->job == NULL ? AM_E_NOMEM : AM_OK;
    for (int turn = 0; turn < AM_SUMS_TURNS; turn++) {
        out->path[turn] = path_of(output, turn);
        AM_KEEP(out->path[turn] == NULL ? AM_E_NOMEM : AM_OK);
    }
    if (rank == 0) {
        AM_KEEP(recognise(out, output, other));
    }
    AM_AGREE(statistics->comm);
    am_pace_start(&out->pace, save_every);
    am_pace_expect(&out->pace, am_tensor_table_bytes(&statistics->layout.tensors));
    AM_TRY(go_on_all(out));
cleanup:
    return rc;
}

void am_sums_free(am_sums *sums)
{
    for (int turn = 0; turn < AM_SUMS_TURNS; turn++) {
        free(sums->path[turn]);
    }
    free(sums->job);
    *sums = (am_sums){0};
}

/* ---- saving ---- */

int am_sums_save_all(am_sums *s)
{
    const double start = am_seconds();
    MPI_Comm comm = s->statistics->comm;
    am_meta meta = {0};
    const am_ckpt_options options = {.overwrite = true, .meta = &meta};
    am_ckpt_writer *writer = NULL;
    am_sink sink = {0};
    int rank, rc = AM_OK;
    MPI_Comm_rank(comm, &rank);
    if (s->saved == s->batches) {
        return AM_OK; /* the same on all ranks */
    }
    rc = am_snapshot_set(&meta, batches_key, s->batches);
    AM_KEEP(am_snapshot_set(&meta, saves_key, s->saves + 1));
    if (rank == 0 && !s->is_told) {
        AM_KEEP(tell(s));
    }
    AM_AGREE(comm);
    AM_TRY(am_ckpt_create_all(comm, s->path[s->saves % AM_SUMS_TURNS],
                              &s->statistics->layout.tensors, &options, &writer));
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

int am_sums_remove_all(MPI_Comm comm, const char *output)
{
    int rank;
    MPI_Comm_rank(comm, &rank);
    return am_agree_all(comm, rank == 0 ? remove_files(output) : AM_OK);
}
