/* Iterative task arithmetic and what it is compared with: the phases of `allmerge iterate`.
 *
 *   base -> heads -> finetune each task (1, 5, 20 ... epochs) -> one-shot merges, individual models
 *                 -> rounds of { finetune each task from the current model; merge }   for each
 * alpha
 *                 -> joint training
 *                 -> gradients by epoch, the plane of all models, if the recipe asks for them
 *   selection on validation data; the test data is used once, for the table.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_ITERATE_H
#define AM_JOBS_TRAINING_ITERATE_H

#include "jobs/training/iterate/points.h"
#include "jobs/training/model_pool.h"
#include "jobs/training/run_folder.h"
#include "jobs/training/suite/suite.h"
#include "jobs/training/table.h"
#include "jobs/training/recipe.h"

typedef struct am_run am_run;                       /* parts.h */
typedef struct am_gradient_epoch am_gradient_epoch; /* gradients.h */
typedef struct am_plane am_plane;                   /* plane.h */
typedef struct am_model_stats am_model_stats;       /* model_stats.h */

/* Mean over the individual models of some number of epochs, on validation data. */
typedef struct am_individual {
    int64_t epochs;
    double validation, validation_loss;
} am_individual;

typedef struct am_iterate {
    const am_train_recipe *recipe; /* borrowed */
    const am_run_folder *folder;   /* borrowed */
    am_suite suite;
    am_saver saver; /* of all calls of training */
    am_model_pool *pool;
    am_model_stats *stats;       /* owned: of the models in the pool; NULL: no merge needs any */
    void *base, *merged, *final; /* trunks, equal on all ranks; final: the chosen iterative model */
    void **trunk;                /* [tasks] own group's tasks, NULL elsewhere */
    void **best;                 /* [tasks] likewise: individual model with the best validation */
    am_individual individual[AM_RECIPE_MAX_LIST];
    int n_individual;
    am_run *run; /* [n_runs] owned */
    int n_runs;
    am_gradient_epoch *gradient; /* [tasks][epochs] owned; NULL: not measured */
    am_plane *plane;             /* owned; NULL: none */
    am_table table;
} am_iterate;

/** Open the data and allocate everything; nothing is written.
 * Collective [comm]; recipe [same], borrowed. Errors: those of the suite, agreed; nothing to close
 * then. */
int am_iterate_open_all(MPI_Comm comm, const am_train_recipe *recipe, am_iterate *it);
/** Collective [comm]. */
void am_iterate_close_all(am_iterate *it);

/** The base (trained, read or random) and the heads (probed or read), saved as base.h5 and
 * heads.h5. Collective; the first step of every training job. save_every: seconds between saved
 * states of what trains, or AM_PACE_AUTO. */
int am_iterate_prepare_all(am_iterate *it, const am_run_folder *folder, double save_every);

/** Validation accuracy and loss of a trunk, into `how` and as an event of `phase`. Collective. */
int am_iterate_validate_all(const am_iterate *it, const char *phase, const void *trunk,
                            am_table_choice *how);
/** Test accuracy of a chosen trunk: one more row of the table. Collective. */
int am_iterate_test_all(am_iterate *it, const char *key, const char *name, const void *trunk,
                        am_table_choice how);
/** Save a trunk as RUN/<name>. Collective. */
int am_iterate_save_all(const am_iterate *it, const char *name, const void *trunk);

/** Run all phases and fill the table. Collective; folder [same], borrowed; save_every as above.
 * Writes base.h5, heads.h5, rounds/, one-shot.h5, joint.h5, final.h5. Errors: those of the parts.
 */
int am_iterate_run_all(am_iterate *it, const am_run_folder *folder, double save_every);

/** Test scores of a trunk into a point: nothing is chosen by them. Collective. */
int am_iterate_test_point_all(const am_iterate *it, const void *trunk, am_point *out);

/** table.txt: the table, and what else was measured; owned by the caller. NULL with AM_E_NOMEM in
 * the slot. */
char *am_iterate_text(const am_iterate *it);
/** Members of the job's result: the table, rounds, and the comparison (gains over one-shot, gap to
 * joint closed). */
void am_iterate_json(const am_iterate *it, am_json *json);

#endif
