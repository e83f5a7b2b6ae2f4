/* How much memory a training job takes on one rank, from its recipe and the headers of its data
 * sets. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_MEMORY_H
#define AM_JOBS_TRAINING_MEMORY_H

#include "jobs/merge/memory.h"
#include "jobs/training/recipe.h"

typedef enum am_train_job {
    AM_JOB_TRAIN,
    AM_JOB_ITERATE,
    AM_JOB_EVAL,
    AM_JOB_THEORY,
    AM_JOB_STATS,     /* of recipe->stats */
    AM_JOB_ALIGN,     /* of that and recipe->align_bytes */
    AM_JOB_TWIN,      /* with its evaluation */
    AM_JOB_EVAL_TWIN, /* that alone */
    AM_JOB_REGMEAN
} am_train_job;

/* Bytes on the rank that takes most, in the phase that does. */
typedef struct am_train_need {
    const char *phase;  /* "pretrain", "probe", "train", "finetune", "merge", "joint", "evaluate",
                         * "descent", "spectra", "load", "statistics", "match", "share", "compress",
                         * "route", "average", "layers" */
    int64_t data;       /* sets in memory, or their pages */
    int64_t parameters; /* trunks, heads, slices to merge */
    int64_t gradients; /* of the leaves on the tree, their sum; or statistics there, and all sums */
    int64_t optimizer; /* its state: whole, or this rank's slice */
    int64_t activations; /* of a leaf, or of the samples evaluated together */
    int64_t peak;        /* of the process, libraries with it */
} am_train_need;

/** What `ranks` ranks of one node would take.
 *
 * process: what this process holds, without the job. sets [n_tasks, and one if there is a set to
 * pretrain on]: what the headers say; NULL: not asked. Collective [comm]: rank 0 reads headers.
 * Errors: those of the data sets and the network; agreed. */
int am_train_plan_all(MPI_Comm comm, const am_train_recipe *recipe, am_train_job job, int ranks,
                      const am_process *process, am_train_need *out, am_dataset_shape *sets);

/** Event "memory": the largest peak of a process so far. Collective [comm]. Errors: AM_E_IO. */
int am_train_report_memory_all(MPI_Comm comm);

#endif
