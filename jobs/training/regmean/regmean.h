/* RegMean++ of the tasks of a suite: the regression mean (solver/merge/regression.h) layer after
 * layer, with Gram matrices of what the layers get behind those that are merged already.
 *
 *   merged := mean of the models
 *   for every layer with a product, in the order of the network, or every block of layers:
 *       for every task t: G_t of its inputs on samples of t, run through the merged layers before
 *       merged weight := regression mean of the tasks' weights with these G_t
 *
 * Within a block the layers of task t's own model are run, as published code does; single layers
 * have none between the merged ones and themselves. What is no weight of a product stays the mean.
 * The same bytes for any number of ranks. Source: Nguyen et al. 2025 (arXiv:2508.03121), algorithm
 * 1. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_REGMEAN_REGMEAN_H
#define AM_JOBS_TRAINING_REGMEAN_REGMEAN_H

#include "jobs/training/recipe.h"
#include "jobs/training/suite/suite.h"

/* Nodes [first, last) whose products are merged together. */
typedef struct am_regmean_step {
    int first, last;
} am_regmean_step;

typedef struct am_regmean {
    const am_suite *suite;             /* borrowed */
    const am_regmean_section *section; /* borrowed */
    void *const *trunks;               /* [tasks] borrowed: of the own group's tasks, else NULL */
    void *merged;                      /* trunk, borrowed: the result so far */
    void *run;                         /* trunk, owned: what samples are run through */
    am_regmean_step *step;             /* [n_steps] owned */
    int n_steps;
} am_regmean;

/** Begin: the mean into merged, a trunk on every rank; trunks as in am_suite_finetune_all. Then
 * every step, in order. After an error only free it. Collective [suite->comm]. Errors: AM_E_DATA (a
 * task without samples), AM_E_NUMERIC (a Gram matrix that is not finite), AM_E_STOPPED,
 * AM_E_NOMEM; agreed. */
int am_regmean_open_all(const am_suite *suite, const am_regmean_section *section,
                        void *const *trunks, void *merged, am_regmean *out);
int am_regmean_step_all(am_regmean *self, int step);
void am_regmean_free(am_regmean *self); /* accepts a zeroed one */
/** The tensors that a step sets, and where they lie in a trunk: tables owned by the caller. Errors:
 * AM_E_NOMEM. */
int am_regmean_tensors(const am_regmean *self, int step, am_tensor_table *tensors,
                       int64_t **offset);

/** Bytes on the largest of `ranks` ranks, beside the models and the merged one: sums [tasks'
 * samples at most n, classes at most classes], and a leaf. net: shaped. Pure but for memory.
 * Errors: AM_E_RECIPE, AM_E_NOMEM. */
int am_regmean_need(const am_net *net, const am_train_ops *ops, const am_regmean_section *section,
                    int ranks, int64_t n, int64_t classes, int64_t *sums, int64_t *leaf);

#endif
