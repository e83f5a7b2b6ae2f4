/* Two networks on the samples of a recipe: sums over what their layers read, by which their units
 * are matched and, for pleas, weights are fitted. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_ALIGN_SAMPLES_H
#define AM_JOBS_ALIGN_SAMPLES_H

#include "jobs/command.h"
#include "jobs/training/recipe.h"
#include "solver/align/match.h"

typedef struct am_pair_request {
    char *task; /* NULL: all of the recipe */
    int split;  /* am_split */
    int64_t samples, batch, micro_batches, memory;
} am_pair_request;

/** What the commands do when they are not told otherwise; for plans. */
extern const am_pair_request am_pair_defaults;

/* Options of a command whose struct `type` has an am_pair_request `on`. */
#define AM_PAIR_OPTIONS(type)                                                                      \
    {"task",                                                                                       \
     AM_PARAM_STRING,                                                                              \
     offsetof(type, on.task),                                                                      \
     "",                                                                                           \
     0,                                                                                            \
     0,                                                                                            \
     NULL,                                                                                         \
     "on the samples of this task of the recipe alone; else of all tasks"},                        \
        {"split", AM_PARAM_CHOICE,         offsetof(type, on.split), "train", 0,                   \
         0,       "train|validation|test", "samples to look at"},                                  \
        {"samples",                                                                                \
         AM_PARAM_INT,                                                                             \
         offsetof(type, on.samples),                                                               \
         "0",                                                                                      \
         0,                                                                                        \
         INT64_MAX,                                                                                \
         NULL,                                                                                     \
         "at most so many of each task, the first ones; 0: all"},                                  \
        {"batch",                                                                                  \
         AM_PARAM_INT,                                                                             \
         offsetof(type, on.batch),                                                                 \
         "512",                                                                                    \
         1,                                                                                        \
         1 << 24,                                                                                  \
         NULL,                                                                                     \
         "samples between two safe points; fixes the rounding"},                                   \
        {"micro_batches",                                                                          \
         AM_PARAM_INT,                                                                             \
         offsetof(type, on.micro_batches),                                                         \
         "8",                                                                                      \
         1,                                                                                        \
         1 << 20,                                                                                  \
         NULL,                                                                                     \
         "parts of a batch that ranks share; fixes the rounding"},                                 \
    {                                                                                              \
        "memory", AM_PARAM_BYTES, offsetof(type, on.memory), "0", 0, INT64_MAX, NULL,              \
            "what a rank may take: data sets that do not fit are read in pages; 0: any"            \
    }

typedef struct am_pair_sums {
    am_stats_layout layout;      /* owned */
    double *whole;               /* [layout.n] owned, equal on all ranks */
    const double **cross, **own; /* [fields] owned; into whole */
    int64_t samples;             /* of all tasks */
} am_pair_sums;
void am_pair_sums_free(am_pair_sums *sums); /* accepts a zeroed one */

/** The recipe as such a job reads it: nothing frozen, no sample that is not used; what it is to
 * make, and what that takes (recipe->align_bytes) beside `extra` bytes of the work that follows.
 * align  of the shaped network; borrowed by the recipe
 * with_samples, with_joint  sums of activations, and those of products with weights
 * Local. Errors: AM_E_USAGE, AM_E_NOMEM. */
int am_pair_adapt(const am_pair_request *request, const am_align *align, bool with_samples,
                  bool with_joint, int64_t extra, am_train_recipe *recipe);

/** Run the networks at `one` and `two` over the samples. recipe: adapted with samples.
 * Collective [am_world]. out: freed by the caller, also after an error. Errors: those of data sets,
 * checkpoints and statistics; AM_E_STOPPED; agreed. */
int am_pair_sums_all(am_train_recipe *recipe, const char *one, const char *two, am_pair_sums *out);

#endif
