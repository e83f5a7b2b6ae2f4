/* `allmerge stats`: Gram matrices and means of what the layers of a model get, and its Fisher
 * information, on the samples of the tasks of a recipe. The output is a checkpoint; README.md has
 * its layout. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_STATS_STATS_H
#define AM_JOBS_STATS_STATS_H

#include "jobs/command.h"
#include "jobs/training/recipe.h"

typedef struct am_stats_request {
    char *output, *model; /* paths */
    char *heads, *task;   /* NULL: of the recipe, all */
    int fisher;           /* am_stats_fisher */
    int split;            /* am_split */
    bool with_grams;
    int64_t samples; /* of each task at most, 0: all */
    int64_t batch, micro_batches, memory;
    double save_every;
    bool overwrite, fresh;
} am_stats_request;

/** What the command does when it is not told otherwise; for plans. */
extern const am_stats_request am_stats_defaults;
/** What stats refuses of a recipe. Errors: AM_E_RECIPE. Local, pure. */
int am_stats_check_recipe(const am_train_recipe *recipe);
/** The recipe as stats reads it: nothing frozen, labels not smoothed, no sample that is not used.
 * Local, pure. */
void am_stats_adapt(const am_stats_request *request, am_train_recipe *recipe);

/** Do it. Collective [am_world]. Errors: AM_E_RECIPE, AM_E_USAGE; those of suite and writer;
 * AM_E_NUMERIC; AM_E_STOPPED: what there is has been saved. */
int am_stats_run_all(const am_args *args, const am_stats_request *request);

#endif
