/* The key `grid` of a merge recipe, and which tensors depend on it.
 *
 *   grid: {shape: [2, 1], above: 8192, block: 64}      process rows, columns; smaller side of a
 *                                                      matrix; rows and columns of a block
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_GRID_H
#define AM_JOBS_MERGE_GRID_H

#include "jobs/merge/plan.h"

/** `grid`, NULL: none. Errors: AM_E_RECIPE. */
int am_merge_read_grid(const am_node *root, am_merge_recipe *recipe);

/** JSON for the manifest: shape, block, and the names of the tensors that are merged on the grid,
 * whose last bits depend on these; *out is NULL where there are none, else owned by the caller.
 * tensors: how many. Local. Errors: those of am_merge_find_spread. */
int am_merge_grid_json(const am_merge_plan *plan, int64_t *tensors, char **out);

#endif
