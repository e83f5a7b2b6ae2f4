/* Statistics of a model on the samples of some tasks, from the first batch, or where an earlier
 * attempt had got, to the published checkpoint. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_STATS_MAKE_H
#define AM_JOBS_STATS_MAKE_H

#include "io/checkpoint/checkpoint.h"
#include "jobs/stats/sums.h"

typedef struct am_stats_work {
    am_statistics *statistics; /* begun; borrowed, as all is */
    const void *trunk;
    const am_task *task; /* [n] with the samples that are looked at */
    int n;
    const char *output;   /* the writer's path */
    const char *identity; /* [root] what the job is */
    am_sums_other other;
    double save_every;
    const char *progress; /* title of the progress display, NULL: none */
} am_stats_work;

/** Samples of all tasks. Pure. */
int64_t am_stats_samples(const am_stats_work *work);
/** Make what is left and publish it, or leave it to the next attempt; frees the writer, which is
 * NULL afterwards. Collective [statistics->comm]; arguments [same]. Errors: those of sums,
 * statistics and writer; AM_E_STOPPED: what there is has been saved. */
int am_stats_make_all(const am_stats_work *work, am_ckpt_writer **writer);

#endif
