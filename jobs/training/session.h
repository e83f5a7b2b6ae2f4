/* A long training run that survives: trunk, optimiser state and position are saved inside epochs,
 * in RUN/state/a.h5 and b.h5 by turns. The newer sound one is gone on with, on any number of ranks;
 * a damaged one falls back to the one before. With on_divergence: rollback, the beginning of an
 * epoch is saved in RUN/state/epoch.h5: when the epoch diverges it is done again from there, and
 * all that follows, with half the learning rate. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SESSION_H
#define AM_JOBS_TRAINING_SESSION_H

#include "jobs/training/run_folder.h"
#include "jobs/training/snapshot.h"
#include "jobs/training/suite/suite.h"
#include "mpi/pace.h"

typedef struct am_session {
    am_suite *suite;             /* borrowed */
    const am_run_folder *folder; /* borrowed */
    void *trunk;                 /* borrowed */
    am_train_state *state;       /* owned */
    am_snapshot snapshot;        /* owned: of trunk and state */
    int64_t saves;               /* made so far, by earlier attempts too */
    int64_t epoch;               /* under way, from 1 */
    int64_t rollbacks;           /* so far */
    int64_t chunk;               /* steps between two looks at the clock */
    am_train_log log;            /* owned: of the epoch, since the last event */
    double logged;               /* seconds: when that was, rank 0's clock */
    am_pace pace;                /* rank 0's counts */
} am_session;

/** Begin at epoch 1 with `trunk` (of am_adapt_net), or where an earlier attempt was: then trunk and
 * session->epoch are what it had saved. save_every: seconds, or AM_PACE_AUTO. Collective
 * [suite->comm]. out: freed by am_session_close, also after an error. */
int am_session_open_all(am_suite *suite, const am_run_folder *folder, void *trunk,
                        const am_train_options *options, double save_every, am_session *out);
void am_session_close(am_session *session);

/** Train the epoch under way to its end, saving now and then; a stop request (AM_E_STOPPED) is
 * saved, too. options: of this epoch. Collective. */
int am_session_epoch_all(am_session *session, const am_train_options *options);

#endif
