/* Models of the tasks that are there, as jobs take them that merge with data at hand: their paths
 * are one pattern, with {task} where the name of a task stands. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_TUNED_H
#define AM_JOBS_TRAINING_TUNED_H

#include "jobs/training/iterate/iterate.h"

/** Has the recipe the models, the base and the heads? section: "twin", whose key `models` the
 * pattern is (NULL: not given). Errors: AM_E_RECIPE. Local, pure. */
int am_tuned_check(const am_train_recipe *recipe, const char *section, const char *models);
/** All that is read: am_train_recipe_inputs and the models; freed by am_train_recipe_inputs_free.
 * NULL: AM_E_NOMEM in the slot. Local. */
char **am_tuned_inputs(const am_train_recipe *recipe, const char *models);

/** Read the models of the own group's tasks into it->trunk; it->merged is overwritten. Collective
 * [it->suite.comm]. Errors: AM_E_NOINPUT, AM_E_DATA; agreed. */
int am_tuned_load_all(am_iterate *it, const char *models);
/** A row of the table: each model on its own task. Collective. */
int am_tuned_test_all(am_iterate *it);

#endif
