/* The sections of a training recipe that have a file each; recipe.c reads them in turn.
 *
 *   sections.c     base, heads, finetune, joint: what is trained and how
 *   merge.c        a merge: method and parameters
 *   comparison.c   merge, one_shot, iterate: what is merged and how often
 *   measures.c     gradients, plane, stats: what is measured of a run beside its table
 *   twin.c         twin: Twin-Merging
 *   regmean.c      regmean: RegMean++
 *
 * Reading is local and pure, errors are AM_E_RECIPE with the place; what is owned is freed by
 * am_train_recipe_free, also after an error. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_RECIPE_PARTS_H
#define AM_JOBS_TRAINING_RECIPE_PARTS_H

#include "jobs/training/recipe.h"

/** base, heads, finetune and joint of the recipe `root`. */
int am_train_sections_read(const am_node *root, am_train_recipe *out);
/** base, heads and finetune with all their values. */
void am_train_sections_print(const am_train_recipe *recipe, am_json *json);
/** joint with all its values. */
void am_train_joint_print(const am_train_recipe *recipe, am_json *json);

/* What a merge may leave to validation data. */
typedef enum am_merge_choice {
    AM_MERGE_FIXED,   /* nothing of its own */
    AM_MERGE_ALPHAS,  /* alpha */
    AM_MERGE_SEARCHED /* and parameters */
} am_merge_choice;

/** A merge; map NULL: the default one. what: names it in messages. */
int am_train_merge_read(const am_node *map, const char *what, am_merge_choice choice,
                        am_train_merge *out);
void am_train_merge_print(const am_train_merge *merge, const char *key, am_json *json);

/** merge, one_shot and iterate; `finetune` has been read. */
int am_train_comparison_read(const am_node *root, am_train_recipe *out);
void am_train_comparison_print(const am_train_recipe *recipe, am_json *json);

/** gradients, plane and stats; `model`, one_shot and iterate have been read. */
int am_train_measures_read(const am_node *root, am_train_recipe *out);
void am_train_measures_print(const am_train_recipe *recipe, am_json *json);

/** twin; all its defaults where it is not given. */
int am_train_twin_read(const am_node *root, am_train_recipe *out);
/** twin.lambda where it is not given: that of the section merge, if it has one. Both sections have
 * been read. */
void am_train_twin_lambda(const am_node *root, am_train_recipe *out);
void am_train_twin_print(const am_train_recipe *recipe, am_json *json);
/** Likewise regmean. */
int am_train_regmean_read(const am_node *root, am_train_recipe *out);
void am_train_regmean_print(const am_train_recipe *recipe, am_json *json);

#endif
