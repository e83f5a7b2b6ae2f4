/* What the phases of iterate share, and the phases:
 *
 *   parts.c      trunks, choices on validation data, merging what the pool holds
 *   base.c       base and heads
 *   one_shot.c   one-shot merges and individual models
 *   twins.c      twins of the tuned models, whose samples are routed
 *   runs.c       the iterative merge: every method with every number of epochs a round
 *   rounds.c     the rounds of a run at one alpha
 *   points.c     what is measured by round
 *   noise.c      rounds with merges that drop at random
 *   joint.c      joint training
 *   gradients.c  gradients by epoch
 *   plane.c      the plane of all models
 *   iterate.c    the job: all of them in turn
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ITERATE_PARTS_H
#define AM_JOBS_TRAINING_ITERATE_PARTS_H

#include "jobs/training/iterate/iterate.h"
#include "mpi/progress.h"

enum { AM_CHOICE_TEXT = 32 };

/* The iterative merge by one method, with one number of epochs a round; runs differ in these. */
struct am_run {
    const am_train_merge *merge;
    int64_t epochs, rounds;
    char label[AM_TABLE_NAME]; /* what its row's key ends with; "" if it is the only run */
    char file[AM_TABLE_NAME];  /* what names of its files begin with; likewise */
    am_table_choice how;       /* of its best model */
    am_point *point;           /* [rounds + 1] owned: at the chosen alpha; NULL: it diverged */
    int64_t n_points;          /* rounds that were done at that alpha */
};

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
/** What validation data says of a model goes into `how`, and is an event. Local. */
void am_iterate_told(const am_iterate *it, const char *phase, am_table_choice *how,
                     const am_scores *scores);
/** A step that an earlier run of the same recipe finished: read its model. Collective. */
int am_iterate_read_all(const am_iterate *it, const char *name, void *trunk, bool *is_done);
/** Merge what the pool holds; what is drawn is keyed by the recipe's seed and `round`, 0: of a
 * one-shot merge, by the seed alone. Collective. */
int am_iterate_merge_all(am_iterate *it, const am_train_merge *merge, double alpha, int64_t round,
                         void *out);
/** A step ended with `code` (agreed): if the job stops, what the step has is saved. Collective.
 * Returns code, or the error of saving. */
int am_iterate_stopped_all(am_iterate *it, int code);
/** Write norms and cosines of the task vectors in the pool as one event. energy: out, the sum of
 * their squared norms; NULL: not wanted. Collective. */
int am_iterate_vectors_all(am_iterate *it, const char *phase, double alpha, int64_t step,
                           double *energy);

/** One-shot merges of every number of epochs, the best of them, the individual models: one-shot.h5
 * and rows of the table. Collective. */
int am_iterate_one_shot_all(am_iterate *it);
/** Twins of the tuned models, which the pool holds, if the recipe asks for them: a row of the
 * table. Collective; it->merged is overwritten, and `shared`, the model that they are around.
 * Errors: those of am_twins_make_all. */
int am_iterate_twins_all(am_iterate *it, int64_t epochs, am_choice *shared);
/** Joint training: joint.h5 and a row of the table. Collective. */
int am_iterate_joint_all(am_iterate *it);
/** Runs of every method and number of epochs at every alpha; the best model becomes it->final,
 * final.h5 and a row of the table. Collective. Errors: AM_E_NUMERIC if all of them diverged. */
int am_iterate_runs_all(am_iterate *it);
/** The rounds of a run at one alpha, from where an earlier attempt had got: models are offered to
 * `best`. An alpha that diverges is abandoned, with a warning: the rounds before count.
 * Collective. current: a trunk to work in; point [rounds + 1], the start's is set: out; n: rounds
 * that were done. */
int am_iterate_rounds_all(am_iterate *it, const am_run *run, double alpha, void *current,
                          am_choice *best, am_progress *progress, am_point *point, int64_t *n);
/** File of a round's model in the run folder. Pure. */
void am_run_round_name(const am_run *run, double alpha, int64_t round, char *out, size_t size);
/** Member "rounds" of the result. */
void am_runs_json(const am_iterate *it, am_json *json);
void am_runs_free(am_iterate *it);
/** Say what becomes of a run whose merge drops elements at random. Local. */
void am_iterate_noise_warn(const am_run *run);
/** Measure the noise of a merge that drops at random: `merged` is what the pool gave.
 * Collective; it->merged is overwritten. Other merges: nothing. */
int am_iterate_noise_all(am_iterate *it, const am_train_merge *merge, double alpha, int64_t round,
                         double vectors_energy, const void *merged, am_point *out);

#endif
