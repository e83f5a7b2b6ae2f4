/* Making statistics: see make.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/stats/make.h"

#include "mpi/agree.h"
#include "mpi/progress.h"

int64_t am_stats_samples(const am_stats_work *work)
{
    int64_t n = 0;
    for (int i = 0; i < work->n; i++) {
        n += work->task[i].train.n;
    }
    return n;
}

static int64_t batches_of(const am_stats_work *work, int i)
{
    return am_statistics_batches(&work->statistics->options, work->task[i].train.n);
}

static int task_all(const am_stats_work *work, int i, int64_t before, am_sums *sums,
                    am_progress *progress)
{
    int rc = AM_OK;
    for (int64_t b = 0; b < batches_of(work, i); b++) {
        if (before + b < sums->batches) {
            continue; /* an earlier attempt made it */
        }
        AM_TRY(am_statistics_batch_all(work->statistics, work->trunk, &work->task[i], b));
        sums->batches++;
        if (work->progress != NULL) {
            am_progress_add(progress, 1);
        }
        AM_TRY(am_sums_save_if_due_all(sums));
    }
cleanup:
    return rc;
}

static int batches_all(const am_stats_work *work, am_sums *sums)
{
    am_progress progress = {0};
    int64_t at = 0; /* batches of tasks before */
    int rc = AM_OK;
    for (int i = 0; i < work->n; i++) {
        at += batches_of(work, i);
    }
    if (work->progress != NULL) {
        am_progress_start(&progress, work->progress, at, "batches");
        am_progress_add(&progress, sums->batches);
    }
    at = 0;
    for (int i = 0; i < work->n && rc == AM_OK; i++) {
        rc = task_all(work, i, at, sums, &progress); /* agreed */
        at += batches_of(work, i);
    }
    if (rc == AM_E_STOPPED) { /* agreed */
        const int saved = am_sums_save_all(sums);
        rc = saved != AM_OK ? saved : rc;
    }
    if (work->progress != NULL) {
        am_progress_end(&progress);
    }
    return rc;
}

int am_stats_make_all(const am_stats_work *work, am_ckpt_writer **writer)
{
    am_sink sink = {0};
    am_sums sums = {0};
    int rc = am_sums_open_all(work->statistics, work->output, work->identity, work->other,
                              work->save_every, &sums);
    if (rc == AM_OK) {
        rc = batches_all(work, &sums);
    }
    if (rc == AM_OK) {
        rc = am_ckpt_sink(*writer, &sink);
        AM_KEEP(am_statistics_store(work->statistics, am_stats_samples(work), &sink));
    }
    am_pace_tell(&sums.pace, "stats");
    rc = am_ckpt_publish_all(writer, rc);
    /* A later attempt goes on, but where it is done or must fail again. */
    if (rc == AM_OK || rc == AM_E_NUMERIC || rc == AM_E_DATA || rc == AM_E_RECIPE) {
        const int removed = am_sums_remove_all(work->statistics->comm, work->output);
        rc = rc != AM_OK ? rc : removed;
    }
    am_sums_free(&sums);
    return rc;
}
