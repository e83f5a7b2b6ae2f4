/* Pieces of which the plans of training jobs are made, and the phases of each job. Everything is
 * local and pure but for memory; errors: AM_E_NOMEM, AM_E_RECIPE, those of the layouts.
 *
 *   planner.c   what calls of train_all, evaluations and the first steps of a job take
 *   train.c iterate.c theory.c stats.c twin.c regmean.c   phases of the jobs
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_MEMORY_PLANNER_H
#define AM_JOBS_TRAINING_MEMORY_PLANNER_H

#include "jobs/training/memory.h"
#include "jobs/training/twin/twin.h"
#include "solver/training/train.h"

enum { AM_PLAN_MERGE_EXTRA = 3 }; /* chunks of doubles of the engine beside one a model */

/* A network and the reals of its trunk: all, and those that are not frozen. */
typedef struct am_plan_net {
    am_net net; /* owned */
    int64_t trunk, moved;
    int64_t slice;    /* the largest rank's, for merges */
    int64_t matrices; /* bytes of methods that merge them */
} am_plan_net;

/* The job that is planned. */
typedef struct am_planner {
    const am_train_recipe *recipe;
    const am_train_ops *ops;
    am_plan_net plain, adapted; /* adapted: all 0 without adapters */
    int ranks;
    int64_t real;                 /* bytes */
    am_dataset_shape *shape;      /* [tasks] owned */
    am_dataset_shape pretraining; /* n is 0 without one */
    const am_process *process;
} am_planner;

/* One call of train_all. */
typedef struct am_plan_call {
    const am_plan_net *on;
    const am_train_section *section;
    const am_dataset_shape *shape; /* [n] */
    int n;
    bool with_trunk, with_head;
    int ranks;    /* that share it */
    bool on_half; /* at times it trains on half of the validation samples instead */
} am_plan_call;

int64_t am_plan_most(int64_t a, int64_t b);
int64_t am_plan_head_reals(const am_planner *p, int64_t classes);
bool am_plan_has_adapters(const am_planner *p);
/** What the calls that train trunks of tasks see. */
const am_plan_net *am_plan_trained(const am_planner *p);
/** Reals of `n` trunks with adapters, and of the point at which they are linearised. */
int64_t am_plan_adapted_reals(const am_planner *p, int64_t n);
/** The largest group's tasks, in one group each where there are ranks enough. */
int64_t am_plan_most_tasks_of_a_group(const am_planner *p);

/** What a call takes on the rank that needs most. */
int am_plan_call_need(const am_planner *p, const am_plan_call *c, am_train_need *need);
/** A phase with `reals` of trunks and `need` beside them: kept in out if none takes more. */
void am_plan_offer(const am_planner *p, const char *phase, int64_t reals, am_train_need need,
                   am_train_need *out);
/** The same of a call; of samples run forward, at most AM_EVAL_GROUP at once; of an evaluation. */
int am_plan_offer_call(const am_planner *p, const char *phase, int64_t reals, const am_plan_call *c,
                       am_train_need *out);
int am_plan_offer_forward(const am_planner *p, const char *phase, int64_t reals, int64_t state,
                          am_train_need *out);
int am_plan_offer_evaluation(const am_planner *p, int64_t reals, int64_t state, am_train_need *out);
/** Base and heads. */
int am_plan_prepare_phases(am_planner *p, am_train_need *out);

/** All phases of a job. */
int am_plan_train_phases(am_planner *p, am_train_need *out);
int am_plan_iterate_phases(am_planner *p, am_train_need *out);
int am_plan_theory_phases(am_planner *p, am_train_need *out);
int am_plan_stats_phases(const am_planner *p, am_train_need *out);
int am_plan_align_phases(const am_planner *p, am_train_need *out);
int am_plan_twin_phases(const am_planner *p, am_train_need *out);
int am_plan_eval_twin_phases(const am_planner *p, am_train_need *out);
int am_plan_regmean_phases(const am_planner *p, am_train_need *out);
/** Those of twins of models that a job tunes, which has `reals` of trunks. */
int am_plan_twins_of_models(const am_planner *p, int64_t reals, am_train_need *out);

#endif
