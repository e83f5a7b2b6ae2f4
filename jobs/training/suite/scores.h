/* How good a trunk is on every task of a suite. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_SUITE_SCORES_H
#define AM_JOBS_TRAINING_SUITE_SCORES_H

#include "jobs/training/suite/suite.h"
#include "mpi/jsonw.h"

/* Accuracy and loss of one trunk on every task. */
typedef struct am_scores {
    int n;
    am_eval_result *task; /* [n] owned, with of_class */
    double accuracy;      /* mean over tasks, 0..1 */
    double loss;          /* mean over tasks */
} am_scores;
void am_scores_free(am_scores *scores);
/** Scores of all tasks, still zero, for evaluations of other kinds: they set out->task[i] and end
 * with am_scores_mean. Collective [suite->comm]. Errors: AM_E_NOMEM, agreed. */
int am_scores_new_all(const am_suite *suite, am_scores *out);
/** The means over the tasks. */
void am_scores_mean(am_scores *scores);

/** Evaluate. Collective [suite->comm]; trunk [same values]. trunks_of: NULL for one trunk for all
 * tasks. */
int am_suite_eval_all(const am_suite *suite, const void *trunk, am_split split, am_scores *out);
/** Evaluate task i with its own trunk (individual models): trunks as in am_suite_finetune_all. */
int am_suite_eval_own_all(const am_suite *suite, void *const *trunks, am_split split,
                          am_scores *out);

/** Share of labels classified right, 0..1. Pure. */
double am_scores_accuracy(const am_eval_result *task);
/** Nats in bits. Pure. */
double am_scores_bits(double nats);
/** Members of an object that is open in `json`: accuracy and loss of every task in all their forms.
 */
void am_scores_json(const am_suite *suite, const am_scores *scores, am_json *json);

#endif
