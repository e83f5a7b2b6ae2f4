/* How large a job has to be: ranks and memory, before it is submitted.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_SUBMIT_SIZE_H
#define AM_JOBS_SUBMIT_SIZE_H

#include "jobs/submit/site.h"
#include "jobs/training/recipe.h"

typedef struct am_size_limits {
    const am_site *site; /* borrowed */
    int64_t ranks;       /* 0: to be chosen */
    int64_t memory;      /* bytes that a rank may take; 0: as the site says, or as it needs */
} am_size_limits;

typedef struct am_job_size {
    int64_t ranks;
    int64_t budget; /* bytes: `merge --memory`; 0: the command has no such option */
    int64_t memory; /* bytes that Slurm gives a rank */
} am_job_size;

/** Of a merge, by its plan: the fewest ranks (a power of two, up to the site's max_ranks) of which
 * none reads more than bytes_per_rank, and memory for them. `size` grows to what this merge needs.
 *
 * Collective [am_world()]; arguments [same]. Errors: those of am_merge_plan_all and am_merge_fit.
 */
int am_size_merge_all(const char *recipe, char *const *set, int n_set, const am_size_limits *limits,
                      am_job_size *size);

/** Of a training job, which has no plan: as many ranks as it has parts of batches that can be
 * shared, and an estimate of memory: what this process holds with the data and models open, and
 * what the optimiser, activations and merges add at most.
 *
 * Collective [am_world()]; arguments [same]. groups: tasks that train side by side. Errors: those
 * of am_iterate_open_all. */
int am_size_training_all(const am_train_recipe *recipe, int64_t groups,
                         const am_size_limits *limits, am_job_size *size);

#endif
