/* The key `grid` of a merge recipe. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/grid.h"

#include <stdlib.h>
#include "io/file.h"
#include "jobs/recipe/bind.h"
#include "mpi/arena.h"
#include "mpi/error.h"
#include "mpi/log.h"
#include "solver/merge/dense.h"

static const am_merge_grid usual = {.layout = {.block = 64}, .above = 8192};

static int read_shape(const am_node *node, const am_node *grid, am_layout *layout)
{
    int64_t side[2] = {0};
    if (node == NULL) {
        return am_node_fail(grid, "grid needs shape: [ROWS, COLUMNS] of processes");
    }
    int rc = am_node_list(node, "grid.shape");
    if (rc == 0 && node->n != 2) {
        rc = am_node_fail(node, "grid.shape is [ROWS, COLUMNS] of processes, two numbers");
    }
    for (int i = 0; rc == 0 && i < 2; i++) {
        rc = am_node_int(node->item[i], "grid.shape", 1, AM_LAYOUT_SIDE, &side[i]);
    }
    layout->rows = (int)side[0];
    layout->cols = (int)side[1];
    return rc;
}

int am_merge_read_grid(const am_node *root, am_merge_recipe *recipe)
{
    static const char *const keys[] = {"shape", "above", "block", NULL};
    const am_node *node = am_node_find(root, "grid");
    if (node == NULL) {
        return 0;
    }
    am_merge_grid *grid = &recipe->grid;
    *grid = usual;
    int rc = am_node_map(node, "grid");
    AM_KEEP(am_recipe_check_keys(node, NULL, keys, "grid."));
    AM_KEEP(read_shape(rc == 0 ? am_node_find(node, "shape") : NULL, node, &grid->layout));
    const am_node *above = rc == 0 ? am_node_find(node, "above") : NULL;
    const am_node *block = rc == 0 ? am_node_find(node, "block") : NULL;
    if (above != NULL) {
        AM_KEEP(am_node_int(above, "grid.above", 1, INT32_MAX, &grid->above));
    }
    if (block != NULL) {
        AM_KEEP(am_node_int(block, "grid.block", 1, AM_LAYOUT_BLOCK, &grid->layout.block));
    }
    recipe->has_grid = rc == 0;
    if (rc == 0 && !recipe->method->on_grid) {
        am_info("%s: grid is not used: %s %s", am_node_where(node), recipe->method->name,
                recipe->method->is_dense != NULL ? "needs every matrix whole on one rank"
                                                 : "merges no matrices");
    }
    return rc;
}

int am_merge_grid_json(const am_merge_plan *plan, int64_t *tensors, char **out)
{
    const am_match *match = &plan->match;
    const am_layout *on = &plan->recipe.grid.layout;
    am_json j = {0};
    *tensors = 0;
    *out = NULL;
    if (plan->job.grid == NULL) {
        return 0;
    }
    bool *is_spread = am_new(match->pieces.n + 1, sizeof *is_spread, "tensors on a grid");
    int rc = is_spread != NULL ? am_merge_find_spread(&plan->job, &match->pieces, is_spread)
                               : AM_E_NOMEM;
    am_json_object(&j, NULL);
    am_json_array(&j, "shape");
    am_json_int(&j, NULL, on->rows);
    am_json_int(&j, NULL, on->cols);
    am_json_end_array(&j);
    am_json_int(&j, "block", on->block);
    am_json_array(&j, "tensors");
    for (int64_t i = 0; rc == 0 && i < match->pieces.n; i++) {
        if (is_spread[i]) { /* matrices are no parts of tensors but whole ones */
            am_json_string(&j, NULL, match->output.t[match->at[i].tensor].name);
            (*tensors)++;
        }
    }
    am_json_end_array(&j);
    am_json_end_object(&j);
    AM_KEEP(am_json_finish(&j));
    if (rc == 0 && *tensors > 0) {
        *out = am_text("%s", j.text);
        rc = *out != NULL ? 0 : AM_E_NOMEM;
    }
    am_json_free(&j);
    free(is_spread);
    return rc;
}
