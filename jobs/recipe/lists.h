/* Lists of numbers in recipes. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_RECIPE_LISTS_H
#define AM_JOBS_RECIPE_LISTS_H

#include "jobs/recipe/yaml.h"

/** `node` is a list of 1 to `most` items; what: names it in messages. Errors: AM_E_RECIPE. */
int am_recipe_list(const am_node *node, const char *what, int64_t most);
/** Numbers from low to high into out [most], *n of them. Errors: AM_E_RECIPE naming `what`. */
int am_recipe_reals(const am_node *node, const char *what, double low, double high, int64_t most,
                    double *out, int *n);
/** Ascending whole numbers from low to high into out [most], *n of them. Errors: AM_E_RECIPE. */
int am_recipe_ascending(const am_node *node, const char *what, int64_t low, int64_t high,
                        int64_t most, int64_t *out, int *n);

#endif
