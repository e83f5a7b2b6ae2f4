/* From a merge recipe to a job of the merge engine. SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>
#include "jobs/merge/plan.h"
#include "jobs/recipe/bind.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"

enum { AM_READ_AHEAD = 2 }; /* batches */

/* Paths of the inputs as written, the base first; path [n]. */
static void list_paths(const am_merge_recipe *recipe, const char **path)
{
    int n = 0;
    if (recipe->base != NULL) {
        path[n++] = recipe->base->text;
    }
    for (int m = 0; m < recipe->n_models; m++) {
        path[n++] = recipe->models[m].path;
    }
}

static int open_inputs_all(MPI_Comm comm, const am_merge_options *options, am_merge_plan *plan)
{
    const int n = plan->recipe.n_models + (plan->recipe.base != NULL);
    int rc = 0;
    char **path = am_new(n + 1, sizeof *path, "input paths");
    const char **written = am_new(n + 1, sizeof *written, "input paths");
    AM_KEEP(path != NULL && written != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    list_paths(&plan->recipe, written);
    AM_TRY(am_model_paths_all(comm, written, n, am_yaml_label(plan->yaml), path));
    if (strcmp(path[0], written[0]) != 0) {
        am_info("the inputs are taken from the folder of the recipe: %s", path[0]);
    }
    AM_TRY(am_inputs_open_all(
        comm, path, n, AM_READ_AHEAD * options->block * (int64_t)sizeof(double), &plan->inputs));
    rc = am_inputs_compare_all(comm, &plan->inputs);
cleanup:
    for (int k = 0; path != NULL && k < n; k++) {
        free(path[k]);
    }
    free(path);
    free(written);
    return rc;
}

/* The output's table: the reference's tensors, floats in the recipe's dtype if it names one. */
static int make_table(am_merge_plan *plan)
{
    int rc = am_tensor_table_copy(am_model_tensors(plan->inputs.model[0]), &plan->tensors);
    plan->copy = rc == 0 ? am_new(plan->tensors.n + 1, sizeof *plan->copy, "tensor table") : NULL;
    if (plan->copy == NULL) {
        return rc != 0 ? rc : AM_E_NOMEM;
    }
    for (int64_t i = 0; i < plan->tensors.n; i++) {
        am_tensor *tensor = &plan->tensors.t[i];
        plan->copy[i] = !am_dtype_is_float(tensor->dtype);
        if (!plan->copy[i] && plan->recipe.dtype != AM_DTYPE_COUNT) {
            tensor->dtype = plan->recipe.dtype;
        }
    }
    return 0;
}

/* Layer of every tensor, and how many layers there are. */
static int number_layers(am_merge_plan *plan)
{
    const am_tensor_table *tensors = &plan->tensors;
    plan->layer = am_new(tensors->n + 1, sizeof *plan->layer, "layer numbers");
    if (plan->layer == NULL) {
        return AM_E_NOMEM;
    }
    for (int64_t i = 0; i < tensors->n; i++) {
        plan->layer[i] = am_layer_number(tensors->t[i].name);
        plan->layers = plan->layer[i] >= plan->layers ? plan->layer[i] + 1 : plan->layers;
    }
    return 0;
}

/* All parameters of one tensor into its rows of the tables. */
static int resolve_tensor(am_merge_plan *plan, int64_t i)
{
    const am_merge_recipe *r = &plan->recipe;
    const char *name = plan->tensors.t[i].name;
    const double t = am_layer_position(name, plan->layers);
    double *param = plan->param + i * r->n_params;
    double *model_param = plan->model_param + i * r->n_models * r->n_params;
    int rc = 0;
    for (int p = 0; p < r->n_params; p++) {
        if (!r->method->params[p].per_model) {
            AM_KEEP(am_merge_recipe_value(r, p, -1, name, t, &param[p]));
            continue;
        }
        for (int m = 0; m < r->n_models; m++) {
            AM_KEEP(am_merge_recipe_value(r, p, m, name, t, &model_param[m * r->n_params + p]));
        }
    }
    return rc;
}

/* The method's own check of the parameters of one tensor. */
static int check_tensor(const am_merge_plan *plan, int64_t i)
{
    const am_merge_recipe *r = &plan->recipe;
    const double *rows[AM_MAX_MODELS];
    if (r->method->check == NULL) {
        return 0;
    }
    for (int m = 0; m < r->n_models; m++) {
        rows[m] = plan->model_param + (i * r->n_models + m) * r->n_params;
    }
    const am_tile tile = {.models = r->n_models,
                          .param = plan->param + i * r->n_params,
                          .model_param = rows,
                          .layer = plan->layer[i],
                          .layers = plan->layers};
    const char *wrong = r->method->check(&tile);
    return wrong == NULL ? 0
                         : am_node_fail(am_yaml_root(r->yaml), "tensor '%s': %s",
                                        plan->tensors.t[i].name, wrong);
}

static int resolve_parameters(am_merge_plan *plan)
{
    const int64_t n = plan->tensors.n, n_params = plan->recipe.n_params;
    plan->param = am_new(n * n_params + 1, sizeof *plan->param, "parameters");
    plan->model_param = am_new(n * n_params * plan->recipe.n_models + 1, sizeof *plan->model_param,
                               "parameters of models");
    int rc = plan->param != NULL && plan->model_param != NULL ? 0 : AM_E_NOMEM;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        if (!plan->copy[i]) {
            AM_KEEP(resolve_tensor(plan, i));
            AM_KEEP(check_tensor(plan, i));
        }
    }
    return rc;
}

static int plan_recipe(const am_merge_options *options, am_merge_plan *plan)
{
    int rc = am_yaml_override_each(plan->yaml, options->n_set, options->set);
    AM_KEEP(am_merge_recipe_read(plan->yaml, &plan->recipe));
    if (rc == 0) {
        am_node_json(am_yaml_root(plan->yaml), NULL, &plan->resolved);
        rc = am_json_finish(&plan->resolved);
    }
    return rc;
}

int am_merge_plan_all(MPI_Comm comm, const char *recipe, const am_merge_options *options,
                      am_merge_plan *out)
{
    int rc = 0;
    *out = (am_merge_plan){0};
    AM_TRY(am_yaml_read_all(comm, recipe, &out->yaml));
    rc = plan_recipe(options, out);
    AM_AGREE(comm);
    AM_TRY(open_inputs_all(comm, options, out));
    rc = make_table(out);
    AM_KEEP(number_layers(out));
    AM_KEEP(resolve_parameters(out));
    AM_AGREE(comm);
    const int n_base = out->recipe.base != NULL;
    out->job = (am_merge_job){.method = out->recipe.method,
                              .base = n_base ? &out->inputs.input[0] : NULL,
                              .n_models = out->recipe.n_models,
                              .models = out->inputs.input + n_base,
                              .param = out->param,
                              .model_param = out->model_param,
                              .scope = out->recipe.scope,
                              .semantics = out->recipe.semantics,
                              .seed = out->recipe.seed,
                              .layer = out->layer,
                              .layers = out->layers,
                              .copy = out->copy,
                              .block = options->block,
                              .progress = "merge",
                              .allow_nonfinite = options->allow_nonfinite};
cleanup:
    return rc;
}

void am_merge_plan_free(am_merge_plan *plan)
{
    am_inputs_close(&plan->inputs);
    am_tensor_table_free(&plan->tensors);
    am_merge_recipe_free(&plan->recipe);
    am_yaml_free(&plan->yaml);
    am_json_free(&plan->resolved);
    free(plan->copy);
    free(plan->layer);
    free(plan->param);
    free(plan->model_param);
    *plan = (am_merge_plan){0};
}
