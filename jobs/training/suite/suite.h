/* A suite: the tasks of a training job with their data, one shared trunk shape, one head per task,
 * and the task groups that the ranks are split into. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SUITE_SUITE_H
#define AM_JOBS_TRAINING_SUITE_SUITE_H

#include <mpi.h>
#include "io/dataset/dataset.h"
#include "jobs/training/rollback.h"
#include "jobs/training/saver.h"
#include "solver/training/lora.h"
#include "solver/training/train.h"

/* Low-rank adapters of a suite: adapt.h. */
typedef struct am_adapters {
    const am_lora_options *lora; /* borrowed */
    am_net net;                  /* owned: with adapters; n is 0 when there are none */
    void **block;                /* [tasks + 1] owned trunks of it: of each task, of all together */
    void *anchor;                /* owned trunk of it: where a linearised network is taken */
} am_adapters;

typedef struct am_suite {
    MPI_Comm comm;           /* all ranks of the job; borrowed */
    const am_train_ops *ops; /* f32 or f64 arithmetic */
    am_net net;              /* owned, shaped for the data */
    am_param_layout trunk;   /* of one trunk */
    am_param_layout moved;   /* its part that training moves; with adapters: these (adapt.h) */
    int n;                   /* tasks */
    am_dataset **data;       /* [n] owned */
    am_param_layout *head;   /* [n] owned */
    void **head_params;      /* [n] owned reals, equal on all ranks */

    MPI_Comm group; /* this rank's task group: it trains its tasks data-parallel */
    int n_groups, my_group;
    int *owner; /* [n] group that trains task i */

    /* Set by the caller after opening. */
    am_divergence divergence; /* zero: stop */
    am_adapters adapters;     /* zero: none */
    am_saver *saver;          /* borrowed; only a call with a state of its own goes without */
    bool halves_validation;   /* what models are chosen by is the second half of it */
    am_split trains_on;       /* AM_VALIDATION: the first half of it */
    int64_t *rollbacks;       /* [n] owned: of task i in this group, not reported yet */
    am_train_log *log;        /* [n] owned: likewise */
} am_suite;

/** Bytes of one real. */
int64_t am_suite_real_bytes(const am_suite *suite);
/** Every task is text. */
bool am_suite_is_text(const am_suite *suite);
/** Samples of task i: of AM_VALIDATION those that models are chosen by. Borrowed. */
am_samples am_suite_samples(const am_suite *suite, int i, am_split split);
/** Name of task i. */
const char *am_suite_task(const am_suite *suite, int i);

/** Open FOLDER/<task>.h5 for every task, lay out trunk and heads, split the ranks. room [n]: bytes
 * of memory for the samples of each task; NULL: any.
 *
 * Collective [comm]; arguments [same]. Groups = min(ranks, tasks), ranks spread evenly over them,
 * tasks given to groups by training samples, longest first; no result depends on it. net needs
 * no shapes yet: the suite makes its own copy and shapes it for the data. Heads start at zero.
 * Errors: AM_E_RECIPE no task; AM_E_NOINPUT, AM_E_DATA from the data sets (feature counts must
 * agree); AM_E_NOMEM; agreed. On error the suite can be (and must be) closed. */
int am_suite_open_all(MPI_Comm comm, const char *folder, const char *const *tasks, int n,
                      const int64_t limit[AM_SPLITS], const int64_t *room, const am_net *net,
                      am_dtype dtype, am_suite *out);
/** Collective [suite->comm] (frees the group communicator). */
void am_suite_close_all(am_suite *suite);

/** First rank of suite->comm in the group of task i: it speaks for the group. */
int am_suite_leader(const am_suite *suite, int task);

/** A trunk's worth of reals. Owned. NULL with AM_E_NOMEM in the slot. */
void *am_suite_trunk_new(const am_suite *suite);

#endif
