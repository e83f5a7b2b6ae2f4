/* Sections gradients and plane of a training recipe. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "jobs/recipe/bind.h"
#include "jobs/training/recipe/parts.h"
#include "mpi/error.h"

static const am_param gradients_table[] = {
    {"epochs", AM_PARAM_INT, offsetof(am_gradients_section, epochs), "0", 0, 1e6, NULL,
     "epochs whose gradients are measured, 0: the most of one_shot.epochs"},
    {"parts", AM_PARAM_INT, offsetof(am_gradients_section, parts), "8", 1, 65536, NULL,
     "parts of the samples of a task that ranks can share; changes the rounding"},
    {0},
};

static const am_param plane_table[] = {
    {"grid", AM_PARAM_INT, offsetof(am_plane_section, grid), "15", 2, 1000, NULL,
     "points of the grid on a side"},
    {"margin", AM_PARAM_REAL, offsetof(am_plane_section, margin), "0.3", 0, 100, NULL,
     "what the grid has around the models, as a share of their extent"},
    {0},
};

int64_t am_train_recipe_gradient_epochs(const am_train_recipe *recipe)
{
    const am_comparison *one_shot = &recipe->one_shot;
    return recipe->gradients.epochs > 0 ? recipe->gradients.epochs
                                        : one_shot->epochs[one_shot->n_epochs - 1];
}

int am_train_measures_read(const am_node *root, am_train_recipe *out)
{
    const am_node *gradients = am_node_find(root, "gradients"),
                  *plane = am_node_find(root, "plane");
    int rc = AM_OK;
    out->gradients.is_given = gradients != NULL;
    out->plane.is_given = plane != NULL;
    if (gradients != NULL) {
        rc = am_recipe_bind(gradients, gradients_table, NULL, "gradients", &out->gradients);
    }
    if (plane != NULL) {
        AM_KEEP(am_recipe_bind(plane, plane_table, NULL, "plane", &out->plane));
    }
    if (rc == AM_OK && gradients != NULL && (out->model.lora.r > 0 || out->model.linearised)) {
        rc = am_node_fail(gradients,
                          "gradients are measured of full weights as they are: leave out %s",
                          out->model.linearised ? "model.linearised" : "model.lora");
    }
    return rc;
}

void am_train_measures_print(const am_train_recipe *recipe, am_json *json)
{
    if (recipe->gradients.is_given) {
        am_json_object(json, "gradients");
        am_param_print_json(gradients_table, &recipe->gradients, json);
        am_json_end_object(json);
    }
    if (recipe->plane.is_given) {
        am_json_object(json, "plane");
        am_param_print_json(plane_table, &recipe->plane, json);
        am_json_end_object(json);
    }
}
