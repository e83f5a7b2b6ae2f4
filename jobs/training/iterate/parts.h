/* What the phases of iterate share, and the phases:
 *
 *   parts.c      trunks, choices on validation data, merging what the pool holds
 *   base.c       base and heads
 *   one_shot.c   one-shot merges and individual models
 *   rounds.c     the iterative merge
 *   joint.c      joint training
 *   iterate.c    the job: all of them in turn
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ITERATE_PARTS_H
#define AM_JOBS_TRAINING_ITERATE_PARTS_H

#include "jobs/training/iterate/iterate.h"

enum { AM_CHOICE_TEXT = 32 };

/* A model chosen on validation data. */
typedef struct am_choice {
    void *trunk; /* owned */
    bool is_set;
    am_table_choice how;
} am_choice;

/** Room for a trunk; free out->trunk. Local. Errors: AM_E_NOMEM. */
int am_choice_new(const am_iterate *it, am_choice *out);
/** What a choice compares, the larger the better: mean validation accuracy, or with by_loss the
 * negative mean loss. Pure. */
double am_choice_score(const am_iterate *it, const am_table_choice *how);
/** The same for people: "0.8123", or "2.1034 bits". Into text[AM_CHOICE_TEXT]; returns it. */
const char *am_choice_text(const am_iterate *it, const am_table_choice *how, char *text);
/** Keep `trunk` if it beats the choice on validation data; the earlier one wins ties. Local. */
void am_choice_offer(const am_iterate *it, am_choice *best, const void *trunk, am_table_choice how);

/** Room for everything that is trained; it->suite is open. Local. Errors: AM_E_NOMEM. */
int am_iterate_allocate(am_iterate *it);
/** Whether a task belongs to this rank's group. Pure. */
bool am_iterate_is_mine(const am_iterate *it, int task);
/** Copy a trunk. Local. */
void am_iterate_copy(const am_iterate *it, void *to, const void *from);
/** Every own task starts from `from`. Local. */
void am_iterate_start_tasks(am_iterate *it, const void *from);
/** A step that an earlier run of the same recipe finished: read its model. Collective. */
int am_iterate_read_all(const am_iterate *it, const char *name, void *trunk, bool *is_done);
/** Merge what the pool holds. Collective. */
int am_iterate_merge_all(am_iterate *it, double alpha, void *out);
/** A step ended with `code` (agreed): if the job stops, what the step has is saved. Collective.
 * Returns code, or the error of saving. */
int am_iterate_stopped_all(am_iterate *it, int code);
/** Write norms and cosines of the task vectors in the pool as one event. Collective. */
int am_iterate_vectors_all(am_iterate *it, const char *phase, double alpha, int64_t step);

/** One-shot merges of every number of epochs, the best of them, the individual models: one-shot.h5
 * and rows of the table. Collective. */
int am_iterate_one_shot_all(am_iterate *it);
/** Joint training: joint.h5 and a row of the table. Collective. */
int am_iterate_joint_all(am_iterate *it);
/** Rounds of every alpha; the best model becomes it->final, final.h5 and a row of the table.
 * Collective. Errors: AM_E_NUMERIC if every alpha diverged. */
int am_iterate_rounds_all(am_iterate *it);

#endif
