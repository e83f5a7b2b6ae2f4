/* The recipe of the training jobs (iterate, train, eval): YAML sections bound to typed tables.
 * Reference: jobs/README.md; annotated examples: jobs/recipes/. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_RECIPE_H
#define AM_JOBS_TRAINING_RECIPE_H

#include <mpi.h>
#include "io/dataset/dataset.h"
#include "jobs/theory/section.h"
#include "jobs/training/model.h"
#include "jobs/training/rollback.h"
#include "solver/analysis/statistics.h"
#include "solver/merge/method.h"
#include "solver/merge/twin.h"
#include "solver/training/train.h"

/* What alpha, round and epochs are chosen by, on validation data. */
enum { AM_CHOOSE_AUTO, AM_CHOOSE_ACCURACY, AM_CHOOSE_LOSS };

/* Where the rounds begin. */
enum { AM_START_BASE, AM_START_ONE_SHOT };

enum { AM_MERGE_NAME = 32 };
enum { AM_RECIPE_MAX_TASKS = 256, AM_RECIPE_MAX_LIST = 32 };
enum { AM_MERGE_LISTS = 4, AM_MERGE_VARIANTS = 256, AM_SEARCHED_TEXT = 160 };

/* One training section: base, heads, finetune, joint. */
typedef struct am_train_section {
    am_optim_options optim; /* keys of am_optim_params */
    int64_t epochs, batch, micro_batches;
    am_rate rate;
    am_augment_options augment;
    bool sum_tasks; /* joint: every step takes a batch of every task */
} am_train_section;

/* Values of a parameter of a merge that are tried. */
typedef struct am_train_list {
    int param; /* of the method */
    int n;
    double value[AM_RECIPE_MAX_LIST];
} am_train_list;

/* A merge of task vectors: the section `merge`, or an entry of `methods`. */
typedef struct am_train_merge {
    char name[AM_MERGE_NAME]; /* in keys and names of files */
    const am_method *method;
    am_scope scope;                     /* 0: as the method has it */
    am_semantics semantics;             /* likewise */
    double param[AM_METHOD_MAX_PARAMS]; /* values of the method's parameters, in table order */
    int lambda;                         /* parameter that alpha sets, -1: the method has none */
    int n_alphas;                       /* its own; 0: those of its section */
    double alpha[AM_RECIPE_MAX_LIST];
    int n_lists; /* param has the first value of each */
    am_train_list list[AM_MERGE_LISTS];
} am_train_merge;

/* Merges that are compared: every method, with every number of epochs, at every alpha. */
typedef struct am_comparison {
    int n_methods, n_epochs, n_alphas;
    am_train_merge method[AM_RECIPE_MAX_LIST];
    int64_t epochs[AM_RECIPE_MAX_LIST];
    double alpha[AM_RECIPE_MAX_LIST]; /* n_alphas 0: each method has its own lambda */
} am_comparison;

/* Gradients by epoch: iterate/gradients.h. */
typedef struct am_gradients_section {
    bool is_given;
    int64_t epochs; /* 0: the most of one_shot.epochs */
    int64_t parts;  /* of the samples of a task, for ranks to share */
} am_gradients_section;

/* The plane of the run: iterate/plane.h. */
typedef struct am_plane_section {
    bool is_given;
    int64_t grid;  /* points a side */
    double margin; /* of the extent of the models, on every side */
} am_plane_section;

/* What statistics of the models methods of the comparisons get: as options of `allmerge stats`. */
typedef struct am_stats_section {
    bool is_given;
    int fisher;      /* am_stats_fisher; not AM_FISHER_NONE */
    int64_t samples; /* of each task at most, 0: all */
    int64_t batch, micro_batches;
} am_stats_section;

/* What model a sample gets: the twins by the router's probabilities, or that of the likeliest task.
 */
typedef enum am_twin_route { AM_TWIN_SOFT, AM_TWIN_TOP1 } am_twin_route;

/* What the row of twins among one-shot merges is called. */
#define AM_TWIN_ROW "twin"

/* Twin-Merging: twin/twin.h. */
typedef struct am_twin_section {
    char *models;  /* owned: path of each task's model, with {task} for its name; NULL: not given */
    double lambda; /* of the merge that makes the shared model, if its method has one */
    am_twin_way compress;
    double density; /* of singular directions, or of elements */
    am_twin_route route;
    int64_t hidden, epochs, batch; /* of the router */
    double lr;
    int64_t samples; /* of each task's validation data that it learns from, 0: all */
} am_twin_section;

/* What RegMean++ merges together. */
typedef enum am_regmean_by { AM_REGMEAN_LAYER, AM_REGMEAN_BLOCK } am_regmean_by;

/* RegMean++: regmean/regmean.h. */
typedef struct am_regmean_section {
    char *models; /* owned: as of am_twin_section */
    double alpha; /* of elements of Gram matrices beside the diagonal */
    am_regmean_by by;
    am_split split;
    int64_t samples, batch, micro_batches;
} am_regmean_section;

typedef struct am_train_recipe {
    char *text; /* resolved recipe with all defaults, YAML, owned: written beside the output */

    int64_t seed;
    am_dtype dtype;
    am_divergence divergence; /* on_divergence */
    int choose_by;            /* AM_CHOOSE_* */
    const char *experiment;   /* what a report makes of the run; static, NULL: nothing special */
    am_model model;

    char *folder; /* owned */
    char **task;  /* [n_tasks] owned */
    int n_tasks;
    int64_t limit[AM_SPLITS]; /* samples of each split at most, 0: all */

    char *base_checkpoint;  /* owned; NULL: pretrain */
    char *base_task;        /* owned; data set to pretrain on; NULL with no checkpoint: random */
    char *heads_checkpoint; /* owned; NULL: probe, or leave them random */
    bool heads_random;
    am_train_section base, heads, finetune, joint;

    am_train_merge merge;
    am_comparison one_shot;           /* epochs: of the models that are merged, ascending */
    am_comparison iterate;            /* epochs: a round, ascending; every one is a run */
    int64_t budget;                   /* epochs that each run trains; 0: `rounds` of them */
    int64_t rounds, patience, warmup; /* warmup: alpha grows linearly over that many */
    int64_t keep;                     /* newest rounds of an alpha that stay on disk, 0: all */
    int start;                        /* AM_START_* */
    bool on_validation;               /* rounds train on validation data: am_dataset_half */
    bool curve;                       /* test data after every round, to be drawn */
    bool run_joint;
    am_gradients_section gradients;
    am_plane_section plane;
    am_stats_section statistics;
    am_theory_section theory;
    bool has_twin; /* the recipe has a section twin */
    am_twin_section twin;
    bool has_regmean; /* likewise */
    am_regmean_section regmean;

    /* What methods of the comparisons need, by the section `stats`; or what the command `stats` was
     * asked for, and of which split (am_stats_adapt). */
    am_statistics_options stats;
    am_split stats_split;
    int64_t align_bytes; /* of align and pleas: of their work after the statistics */

    /* Not of the recipe's text: bytes of memory for the samples of each task and, at [n_tasks], of
     * the set to pretrain on, owned; NULL: any. Set by am_train_fit_all. */
    int64_t *room;
} am_train_recipe;

/** Read and check a recipe.
 *
 * Collective [comm]; path, set [same]; set: n_set texts "KEY=VALUE" that override keys.
 * Errors: AM_E_NOINPUT; AM_E_RECIPE with file:line:column; agreed. */
int am_train_recipe_read_all(MPI_Comm comm, const char *path, char *const *set, int n_set,
                             am_train_recipe *out);
/** Models are chosen by loss, not by accuracy: as the recipe says, or for tasks that are all text.
 * Pure. */
bool am_train_recipe_by_loss(const am_train_recipe *recipe, bool is_text);
/** Does the merge take what a run has, one model a task? section: names it in the message. Errors:
 * AM_E_RECIPE. Pure. */
int am_train_merge_check(const am_train_merge *merge, const char *section, int n_tasks);
/** The same of what makes the shared model of twins, which goes without statistics. */
int am_train_merge_check_shared(const am_train_merge *merge, int n_tasks);
/** Members scope and semantics, where they are given. */
void am_train_merge_print_own(const am_train_merge *merge, am_json *json);
/** Share of the elements of the task vectors that a merge drops at random; 0: none. Pure. */
double am_train_merge_drops(const am_train_merge *merge);
/** Variants of a merge: one for every combination of the values of its lists, the last list first;
 * its v-th, with a value for each. Pure. */
int am_train_merge_variants(const am_train_merge *merge);
am_train_merge am_train_merge_variant(const am_train_merge *merge, int v);
/** Member "searched" of what was chosen: the values of the v-th variant; nothing without lists. */
void am_train_merge_searched(const am_train_merge *merge, int v, am_json *json);
/** The same for people, " density 0.2", into text[AM_SEARCHED_TEXT]; returns it. */
const char *am_train_merge_searched_text(const am_train_merge *merge, int v, char *text);
/** Alphas that a method of a comparison is tried with, and the a-th; NaN for a method without a
 * lambda, which is merged once. Pure. */
int am_comparison_alphas(const am_comparison *comparison, const am_train_merge *merge);
double am_comparison_alpha(const am_comparison *comparison, const am_train_merge *merge, int a);
/** A method of the comparisons works by rows or on matrices. Pure. */
bool am_train_recipe_on_wholes(const am_train_recipe *recipe);
/** One of n merges, or of all of the comparisons, needs statistics of the models: recipe->stats
 * says which. Pure. */
bool am_merges_need_stats(const am_train_merge *merges, int n);
bool am_train_recipe_needs_stats(const am_train_recipe *recipe);
/** Rounds of a run with so many epochs a round. Pure. */
int64_t am_train_recipe_rounds(const am_train_recipe *recipe, int64_t round_epochs);
/** Epochs of joint training: as many as the longest run trains, unless the recipe says otherwise.
 * Pure. */
int64_t am_train_recipe_joint_epochs(const am_train_recipe *recipe);
/** Epochs whose gradients are measured. Pure. */
int64_t am_train_recipe_gradient_epochs(const am_train_recipe *recipe);
/** Make recipe->text anew, after a change. Local. Errors: AM_E_NOMEM. */
int am_train_recipe_resolve(am_train_recipe *recipe);
/** Paths of all that a job of this recipe reads, NULL-terminated, freed by
 * am_train_recipe_inputs_free; NULL: AM_E_NOMEM in the message slot. Local. */
char **am_train_recipe_inputs(const am_train_recipe *recipe);
void am_train_recipe_inputs_free(char **inputs);
void am_train_recipe_free(am_train_recipe *recipe);

/** Options of a section. purpose and round key the shuffles; first_epoch: epochs trained before,
 * and run_epochs: epochs of the whole run (0: those of the call), for the learning rate. */
am_train_options am_train_section_options(const am_train_section *section, int64_t seed,
                                          const char *purpose, int64_t round, int64_t first_epoch,
                                          int64_t run_epochs);

#endif
