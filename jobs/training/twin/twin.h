/* Twin-Merging of the tasks of a suite: a shared model theta*, any merge of them; of each task a
 * compressed twin, theta_t - theta* (solver/merge/twin.h); and a router, a small network that tells
 * from what the heads get of the shared model which task a sample is of. A sample x is evaluated
 * with theta* + sum_t w_t(x) twin_t, w the router's probabilities, or with the twin of the
 * likeliest task alone.
 *
 *     am_twins twins = {0};
 *     AM_TRY(am_twins_make_all(&suite, &section, seed, shared, trunks, &twins));
 *     AM_TRY(am_twins_eval_all(&twins, AM_TWIN_SOFT, AM_TEST, &scores, NULL));
 *     cleanup: am_twins_free(&twins);
 *
 * The same bytes for any number of ranks and groups. Source: Lu et al. 2024 (arXiv:2406.15479),
 * algorithm 1. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_TWIN_TWIN_H
#define AM_JOBS_TRAINING_TWIN_TWIN_H

#include "jobs/training/recipe.h"
#include "jobs/training/run_folder.h"
#include "jobs/training/suite/scores.h"
#include "jobs/training/table.h"
#include "solver/merge/twin.h"

/* A network of one hidden layer on standardised features. */
typedef struct am_router {
    am_net net;                       /* owned, shaped */
    am_param_layout trunk, head;      /* owned */
    void *trunk_params, *head_params; /* owned reals of the suite's type */
    double *mean, *scale; /* [features of what heads get] owned: x -> (x - mean) scale */
} am_router;

typedef struct am_twins {
    const am_suite *suite;          /* borrowed */
    const am_twin_section *section; /* borrowed */
    uint64_t seed;                  /* of the router */
    const void *shared;             /* trunk, borrowed */
    am_twin_layout layout;          /* owned */
    double **value;   /* [tasks] owned, [layout.values] each: numbers of the suite's type */
    int64_t **index;  /* [tasks] owned, [layout.indices] each */
    am_router router; /* owned */

    /* Set by the caller: the run folder that keeps the scores of every task as units, whose names
     * begin with label, for a run that goes on; NULL: nowhere. Borrowed. */
    const am_run_folder *folder;
    char label[AM_TABLE_NAME];
} am_twins;

/** Compress the twins of all tasks and train the router on the first half of the validation samples
 * of every task.
 *
 * Collective [suite->comm]; suite (open, with its heads), section and shared are borrowed for the
 * life of out. shared [same] a trunk. trunks [tasks]: of the own group's tasks, the same within a
 * group; NULL elsewhere (as in am_suite_finetune_all). Memory: see am_twins_need.
 * out: freed by am_twins_free, also after an error. Errors: AM_E_NUMERIC (a twin that is not
 * finite, a router that diverges), AM_E_DATA (a task with less than two validation samples),
 * AM_E_STOPPED, AM_E_NOMEM, those of the data; agreed. */
int am_twins_make_all(am_suite *suite, const am_twin_section *section, uint64_t seed,
                      const void *shared, void *const *trunks, am_twins *out);
void am_twins_free(am_twins *twins); /* accepts a zeroed one */

/** The steps of am_twins_make_all, for jobs that save what each has made: room for all; the twin of
 * one task; the router. Collective [suite->comm]; trunk: on the ranks of the task's group. */
int am_twins_open_all(am_suite *suite, const am_twin_section *section, uint64_t seed,
                      const void *shared, am_twins *out);
int am_twins_compress_all(am_twins *twins, int task, const void *trunk);
int am_twins_route_all(am_twins *twins);

/** A task's twin and the router as checkpoints, and back. A twin has for each tensor NAME of the
 * trunk: NAME.u, NAME.s, NAME.vt; or NAME.value and NAME.index; or NAME. Collective. Errors of
 * loading: AM_E_DATA (another form, another origin (origin.h), an index out of range, not
 * finite). */
int am_twins_save_all(const am_twins *twins, int task, const char *path,
                      const am_ckpt_options *options);
int am_twins_load_all(am_twins *twins, int task, const char *path);
int am_router_save_all(const am_twins *twins, const char *path, const am_ckpt_options *options);
int am_router_load_all(am_twins *twins, const char *path);

/** The router's probability of every task, for samples of task i: weight [n, tasks], on every
 * rank. Collective. */
int am_router_weights_all(const am_twins *twins, int task, const am_samples *samples,
                          double *weight);

/** Scores of every task, each sample with the model that the router gives it and the head of its
 * task. Of AM_VALIDATION: the second half, from which the router has not learnt. routed [tasks] or
 * NULL: share of a task's samples whose likeliest task is theirs. Collective. Errors: those of
 * eval_all, AM_E_NOMEM; agreed. */
int am_twins_eval_all(const am_twins *twins, am_twin_route route, am_split split, am_scores *out,
                      double *routed);

/** Event "routed" with these shares. Local. */
void am_twins_report(const am_suite *suite, const double *routed);

/** The twin of a task, expanded: reals of the suite's type [trunk]. Local. Errors: AM_E_NOMEM. */
int am_twins_expand(const am_twins *twins, int task, void *out);

/* Bytes on a rank beside the trunks of a job. */
typedef struct am_twins_need {
    int64_t kept;     /* all the time: twins, router */
    int64_t compress; /* while a twin is made: a trunk and a factorisation */
    int64_t features; /* of the samples that the router learns from, while the trunk makes them */
    int64_t route;    /* while the router is trained: these too */
    int64_t evaluate; /* while a task is evaluated: expanded twins, weights, features */
} am_twins_need;

/** net: shaped; validation, evaluated [n_tasks]: samples. Pure but for memory. Errors: AM_E_NOMEM,
 * AM_E_RECIPE. */
int am_twins_need_of(const am_net *net, const am_train_ops *ops, const am_twin_section *section,
                     int n_tasks, const int64_t *validation, const int64_t *evaluated,
                     am_twins_need *out);

#endif
