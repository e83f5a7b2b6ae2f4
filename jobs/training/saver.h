/* Calls of training that survive. While a call trains, what it has is saved now and then in
 * RUN/work/NAME-a.h5 and NAME-b.h5 by turns, and when the job is asked to stop; so are finished
 * tasks of a step whose result is not published yet. The same call in a later attempt goes on from
 * the newest sound one, on any number of ranks, to the same bytes; what the interval costs is in
 * mpi/pace.h. A call that diverges is taken back and made again (rollback.h).
 *
 *     am_saver_step("round 3") -> train_all of each task -> publish the model -> am_saver_done_all
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SAVER_H
#define AM_JOBS_TRAINING_SAVER_H

#include "jobs/training/rollback.h"
#include "jobs/training/run_folder.h"
#include "jobs/training/snapshot.h"
#include "mpi/pace.h"

enum { AM_SAVER_STEP = 128 };

typedef struct am_saver_finished am_saver_finished;

typedef struct am_saver {
    const am_run_folder *folder; /* borrowed */
    char step[AM_SAVER_STEP];    /* what is being made: files of another step are not used */
    bool keeps_finished;         /* a call that is finished may have to be saved */
    bool has_trained;            /* this rank, in this step */
    am_saver_finished *finished; /* owned: calls of this step, the newest first */
    int64_t chunk;               /* optimiser steps between two looks at the clock */
    am_pace pace;                /* rank 0 of a call counts */
} am_saver;

/* A call of train_all. */
typedef struct am_saver_call {
    MPI_Comm comm;
    const char *name; /* of its files: the task's, or "joint" */
    const am_train_ops *ops;
    const am_net *net;
    const am_param_layout *moved; /* what training moves of the trunk: am_param_layout_part */
    void *trunk;
    am_task *tasks;
    const am_param_layout *heads; /* [n_tasks] */
    int n_tasks;
    const am_train_options *options;
    const am_divergence *policy;
} am_saver_call;

/** save_every: seconds, or AM_PACE_AUTO. Local; *out is freed by am_saver_free. */
void am_saver_open(const am_run_folder *folder, double save_every, am_saver *out);
void am_saver_free(am_saver *saver); /* accepts a zeroed one */

/** The calls that follow make `step`, a name that no other step of the run has. keeps_finished:
 * several calls make it, and it is published when all are finished. Local, on all ranks alike. */
void am_saver_step(am_saver *saver, bool keeps_finished, const char *step, ...)
    __attribute__((format(printf, 3, 4)));
/** The result of the step is on disk: what was saved on the way is removed. Collective [comm]: all
 * ranks of the job. */
int am_saver_done_all(am_saver *saver, MPI_Comm comm);
/** The job is done: RUN/work is removed. Collective [comm]: all ranks of the job. */
int am_saver_end_all(const am_saver *saver, MPI_Comm comm);

/** ops->train_all, from where an earlier attempt had got; when it diverges, what it trains is put
 * back and it is done again, at most policy->rollbacks times.
 *
 * Collective [call->comm]; all [same]. options->state and most_steps are the saver's. rollbacks:
 * out, how many were made. result->diverged: it did to the last. Memory: the optimiser's state, and
 * a copy of what is trained if there may be rollbacks. Errors: those of train_all and of the
 * checkpoints; AM_E_STOPPED: what there is has been saved. */
int am_saver_train_all(am_saver *saver, const am_saver_call *call, am_train_result *result,
                       int64_t *rollbacks);
/** The job stops (agreed): calls of this step that are finished are saved. Collective [comm]: that
 * of the calls. */
int am_saver_stop_all(am_saver *saver, MPI_Comm comm);

#endif
