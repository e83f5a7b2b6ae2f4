/* From a merge recipe to a job of the merge engine. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/merge/plan.h"
#include "jobs/merge/complaints.h"
#include "jobs/stats/origin.h"
#include "jobs/recipe/bind.h"
#include "jobs/stats/names.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"

enum { AM_READ_AHEAD = 2 }; /* batches */

/* ---- inputs ---- */

/* Does every model have a second checkpoint beside it? */
static bool has_second(const am_merge_recipe *r)
{
    return r->method->needs_aux || r->method->needs_gram;
}

/* Paths of the inputs as written, and which of them is the base of each slice; path [n_slots +
 * n_slices + n_models + 1]. Returns how many. */
static int list_paths(const am_merge_recipe *r, const char **path, int *base)
{
    int n = r->has_base;
    for (int m = 0; m < r->n_models; m++) {
        path[n + r->models[m].slot] = r->models[m].path;
    }
    n += r->n_slots;
    for (int s = 0; r->has_base && s < r->n_slices; s++) {
        const char *name = r->slices[s].base->text;
        path[0] = s == 0 ? name : path[0];
        base[s] = r->n_slots + 1;
        while (base[s] < n && strcmp(path[base[s]], name) != 0) {
            base[s]++;
        }
        base[s] = strcmp(path[0], name) == 0 ? 0 : base[s];
        if (base[s] == n) {
            path[n++] = name;
        }
    }
    for (int m = 0; has_second(r) && m < r->n_models; m++) {
        path[n++] = r->models[m].second;
    }
    return n;
}

/* No more than this for an input; what is staged decides how much of it is used. */
static int64_t read_ahead(const am_merge_options *options)
{
    return options->block > 0 ? AM_READ_AHEAD * options->block * (int64_t)sizeof(double)
                              : options->memory;
}

/* vocab: map: every source gets the rows of the output's vocabulary. */
static int order_rows_all(MPI_Comm comm, const char *const *written, am_merge_plan *plan)
{
    am_inputs *in = &plan->inputs;
    int rc = 0;
    const char **path = am_new(in->n + 1, sizeof *path, "input paths");
    am_source *ordered = am_new(in->n + 1, sizeof *ordered, "inputs");
    AM_KEEP(path != NULL && ordered != NULL ? 0 : AM_E_NOMEM);
    for (int k = 0; rc == 0 && k < in->n; k++) {
        path[k] = am_model_files(in->model[k])[0];
    }
    AM_AGREE(comm);
    const am_vocab_files files = {
        .n = in->n, .written = written, .path = path, .source = in->source};
    AM_TRY(am_vocab_rows_make_all(comm, &plan->recipe, &files, &plan->rows));
    if (plan->rows.is_same) { /* the same on every rank */
        goto cleanup;
    }
    plan->row_order = am_new(in->n + 1, sizeof *plan->row_order, "inputs");
    AM_KEEP(plan->row_order != NULL ? 0 : AM_E_NOMEM);
    for (int k = 0; rc == 0 && k < in->n; k++) {
        rc = am_vocab_source_create(&plan->rows, &plan->recipe.layers, k, in->source,
                                    &plan->row_order[k], &ordered[k]);
    }
    AM_AGREE(comm);
    memcpy(in->source, ordered, (size_t)in->n * sizeof *ordered);
cleanup:
    free(path);
    free(ordered);
    return rc;
}

static int open_files_all(MPI_Comm comm, const am_merge_options *options, const char **written,
                          int n, am_merge_plan *plan)
{
    int rc = 0;
    char **path = am_new(n + 1, sizeof *path, "input paths");
    AM_KEEP(path != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    AM_TRY(am_model_paths_all(comm, written, n, am_yaml_label(plan->yaml), path));
    if (strcmp(path[0], written[0]) != 0) {
        am_info("the inputs are taken from the folder of the recipe: %s", path[0]);
    }
    AM_TRY(am_inputs_open_files_all(comm, path, n, plan->recipe.has_base, read_ahead(options),
                                    &plan->inputs));
    if (plan->recipe.vocab == AM_VOCAB_MAP) {
        AM_TRY(order_rows_all(comm, written, plan));
    }
cleanup:
    for (int k = 0; path != NULL && k < n; k++) {
        free(path[k]);
    }
    free(path);
    return rc;
}

static int match_inputs(am_merge_plan *plan, const int *base)
{
    const am_tensor_table **tensors = am_new(plan->inputs.n + 1, sizeof *tensors, "input tables");
    if (tensors == NULL) {
        return AM_E_NOMEM;
    }
    for (int k = 0; k < plan->inputs.n; k++) {
        tensors[k] = plan->inputs.source[k].tensors;
    }
    const am_match_files files = {.n_inputs = plan->recipe.n_slots + plan->recipe.has_base,
                                  .n = plan->inputs.n,
                                  .path = (const char *const *)plan->inputs.path,
                                  .tensors = tensors,
                                  .base = base};
    int rc = am_match_make(&plan->recipe, &files, &plan->match);
    free(tensors);
    return rc;
}

/* Input k of the job: its own file with an index of its tensors, or a view. */
static int bind_input(am_merge_plan *plan, int k)
{
    const am_match *match = &plan->match;
    const int64_t n = match->pieces.n;
    const am_view_place *place = match->place + k * n;
    int64_t *index = am_new(n + 1, sizeof *index, "tensor index");
    const am_source **behind = plan->behind + (int64_t)k * (plan->inputs.n + 1);
    if (index == NULL) {
        return AM_E_NOMEM;
    }
    plan->input[k] = (am_merge_input){.source = &plan->inputs.source[k], .tensor = index};
    for (int64_t i = 0; i < n; i++) {
        index[i] = place[i].source < 0 ? -1 : match->has_views ? i : place[i].tensor;
    }
    if (!match->has_views) {
        return 0;
    }
    behind[0] = &plan->inputs.source[k];
    for (int f = 0; f < plan->inputs.n; f++) {
        behind[1 + f] = &plan->inputs.source[f];
    }
    int rc = am_view_create(&match->pieces, plan->inputs.n + 1, behind, place, &plan->view[k]);
    if (rc == 0) {
        am_view_source(plan->view[k], &plan->source[k]);
        plan->input[k].source = &plan->source[k];
    }
    return rc;
}

static int bind_inputs(am_merge_plan *plan)
{
    const int n = plan->match.n_inputs;
    plan->view = am_new(n + 1, sizeof *plan->view, "inputs");
    plan->behind = am_new((int64_t)n * (plan->inputs.n + 1) + 1, sizeof *plan->behind, "inputs");
    plan->source = am_new(n + 1, sizeof *plan->source, "inputs");
    plan->input = am_new(n + 1, sizeof *plan->input, "inputs");
    int rc =
        plan->view != NULL && plan->behind != NULL && plan->source != NULL && plan->input != NULL
            ? 0
            : AM_E_NOMEM;
    for (int k = 0; rc == 0 && k < n; k++) {
        rc = bind_input(plan, k);
    }
    return rc;
}

static int open_inputs_all(MPI_Comm comm, const am_merge_options *options, am_merge_plan *plan)
{
    const am_merge_recipe *r = &plan->recipe;
    int rc = 0;
    const char **path =
        am_new(r->n_slots + r->n_slices + r->n_models + 2, sizeof *path, "input paths");
    int *base = am_new(r->n_slices + 1, sizeof *base, "input paths");
    AM_KEEP(path != NULL && base != NULL ? 0 : AM_E_NOMEM);
    AM_AGREE(comm);
    AM_TRY(open_files_all(comm, options, path, list_paths(r, path, base), plan));
    rc = match_inputs(plan, base);
    AM_KEEP(bind_inputs(plan));
    AM_AGREE(comm);
    if (r->buffers == AM_BUFFERS_ERROR) {
        rc = am_inputs_compare_all(comm, &plan->match.pieces, plan->input, plan->match.n_inputs);
    }
cleanup:
    free(path);
    free(base);
    return rc;
}

/* ---- parameters ---- */

/* Name of a piece in a model: what filters of its own parameters look at. */
static const char *name_in(const am_merge_plan *plan, int64_t piece, int input)
{
    const am_view_place *place = &plan->match.place[input * plan->match.pieces.n + piece];
    return place->source == 0 ? am_model_tensors(plan->inputs.model[input])->t[place->tensor].name
                              : plan->match.output.t[plan->match.at[piece].tensor].name;
}

/* ---- second checkpoints ---- */

static bool has_shape_of(const am_tensor *a, const am_tensor *b)
{
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0;
}

/* The Fisher values of a tensor: under its own name, or as `stats` writes them. */
static int64_t find_second(const am_tensor_table *tensors, const char *name)
{
    const int64_t at = am_tensor_table_find(tensors, name);
    return at >= 0 ? at : am_stats_find_fisher(tensors, name);
}

/* Is `found` what the second checkpoint needs for a piece: its like, or a Gram matrix? */
static bool fits_second(const am_merge_plan *plan, const am_tensor *piece, const am_tensor *found)
{
    const int64_t cols =
        piece->ndim > 0 && piece->shape[0] > 0 ? piece->numel / piece->shape[0] : 0;
    return am_dtype_is_float(found->dtype) &&
           (plan->recipe.method->needs_aux
                ? has_shape_of(found, piece)
                : found->ndim == 2 && found->shape[0] == cols && found->shape[1] == cols);
}

/* Tensors of model m's second checkpoint for every piece that is merged of it. */
static int index_second(am_merge_plan *plan, int m, am_complaints *complaints)
{
    const am_merge_recipe *r = &plan->recipe;
    const int file = plan->inputs.n - r->n_models + m, slot = r->models[m].slot;
    const am_tensor_table *pieces = &plan->match.pieces;
    const am_tensor_table *tensors = am_model_tensors(plan->inputs.model[file]);
    int64_t *index = am_new(pieces->n + 1, sizeof *index, "tensor index"), n = 0;
    if (index == NULL) {
        return AM_E_NOMEM;
    }
    plan->second[slot] = (am_merge_input){.source = &plan->inputs.source[file], .tensor = index};
    for (int64_t i = 0; i < pieces->n; i++) {
        const int input = slot + r->has_base;
        index[i] = -1;
        if (plan->match.copy[i] || plan->input[input].tensor[i] < 0) {
            continue;
        }
        const char *name = name_in(plan, i, input);
        index[i] =
            r->method->needs_aux ? find_second(tensors, name) : am_stats_find_gram(tensors, name);
        n += index[i] >= 0;
        if (index[i] < 0 ? r->method->needs_aux
                         : !fits_second(plan, &pieces->t[i], &tensors->t[index[i]])) {
            am_complain(complaints, "%s: tensor '%s' %s", plan->inputs.path[file],
                        index[i] < 0 ? pieces->t[i].name : tensors->t[index[i]].name,
                        index[i] < 0 ? "is missing" : "has another shape or type than the model's");
        }
    }
    if (r->method->needs_gram && n == 0) {
        am_complain(complaints,
                    "%s: no Gram matrix of a tensor of the model (gram.LAYER for "
                    "LAYER.weight): make it with allmerge stats",
                    plan->inputs.path[file]);
    }
    return 0;
}

/* Gram matrices are there of the same tensors for all models. */
static void compare_grams(const am_merge_plan *plan, am_complaints *complaints)
{
    const am_merge_recipe *r = &plan->recipe;
    for (int64_t i = 0; r->method->needs_gram && i < plan->match.pieces.n; i++) {
        int with = -1;
        for (int m = 0; m < r->n_slots; m++) {
            with = plan->second[m].tensor[i] >= 0 ? m : with;
        }
        for (int m = 0; m < r->n_slots && with >= 0; m++) {
            if (plan->input[m + r->has_base].tensor[i] >= 0 && plan->second[m].tensor[i] < 0) {
                am_complain(complaints, "%s: the Gram matrix of '%s' is missing (%s has it)",
                            plan->second[m].source->label, plan->match.pieces.t[i].name,
                            plan->second[with].source->label);
            }
        }
    }
}

static int bind_second(am_merge_plan *plan)
{
    const am_merge_recipe *r = &plan->recipe;
    am_complaints complaints = {.n = 0};
    if (!has_second(r)) {
        return 0;
    }
    plan->second = am_new(r->n_slots + 1, sizeof *plan->second, "second inputs");
    int rc = plan->second != NULL ? 0 : AM_E_NOMEM;
    for (int m = 0; rc == 0 && m < r->n_models; m++) {
        rc = index_second(plan, m, &complaints);
    }
    if (rc == 0) {
        compare_grams(plan, &complaints);
    }
    AM_KEEP(am_complaints_fail(&complaints, r->method->needs_aux
                                                ? "the Fisher values do not match their models"
                                                : "the Gram matrices do not match their models"));
    return rc;
}

/* Rank 0: was the file beside each model made of that model? */
static int compare_origins(const am_merge_plan *plan)
{
    const am_merge_recipe *r = &plan->recipe;
    const am_inputs *in = &plan->inputs;
    am_complaints complaints = {.n = 0};
    int rc = 0;
    for (int m = 0; rc == 0 && m < r->n_models; m++) {
        const int file = in->n - r->n_models + m, model = r->models[m].slot + r->has_base;
        bool is_of = true;
        rc = am_stats_is_of(&in->source[model], am_model_tensors(in->model[file]),
                            am_model_meta(in->model[file]), &is_of);
        if (!is_of) {
            am_complain(&complaints,
                        "%s was made of another model than %s (of its values before they were "
                        "rounded, perhaps): make it of this one with allmerge stats, or write "
                        "stats_of: any",
                        in->path[file], in->path[model]);
        }
    }
    AM_KEEP(am_complaints_fail(&complaints, "statistics do not belong to their models"));
    return rc;
}

static int check_origins_all(MPI_Comm comm, const am_merge_plan *plan)
{
    int rank, rc = 0;
    MPI_Comm_rank(comm, &rank);
    if (rank == 0 && has_second(&plan->recipe) && plan->recipe.stats_of == AM_STATS_OF_MODEL) {
        rc = compare_origins(plan);
    }
    return am_agree_all(comm, rc);
}

/* All parameters of one piece into its rows of the tables. */
static int resolve_piece(am_merge_plan *plan, int64_t i)
{
    const am_merge_recipe *r = &plan->recipe;
    const am_merge_slice *slice = &r->slices[plan->match.slice[i]];
    const char *name = plan->match.output.t[plan->match.at[i].tensor].name;
    const int64_t layers = slice->node != NULL ? slice->layers : plan->match.depth[i];
    const int64_t layer = plan->match.layer[i] - slice->at;
    const double inside = layers > 1 ? (double)layer / (double)(layers - 1) : 1; /* as mergekit */
    const double t = plan->match.layer[i] >= 0 ? inside : 0;
    double *param = plan->param + i * r->n_params;
    int rc = 0;
    for (int p = 0; p < r->n_params; p++) {
        if (!r->method->params[p].per_model) {
            AM_KEEP(am_merge_recipe_value(r, p, slice, NULL, name, t, &param[p]));
            continue;
        }
        for (int k = slice->first; k < slice->first + slice->n; k++) {
            const am_merge_model *model = &r->models[k];
            double *row = plan->model_param + (i * r->n_slots + model->slot) * r->n_params;
            const char *own = name_in(plan, i, model->slot + r->has_base);
            AM_KEEP(am_merge_recipe_value(r, p, slice, model, own, t, &row[p]));
        }
    }
    return rc;
}

/* The method's own check of the parameters of one piece. */
static int check_piece(const am_merge_plan *plan, int64_t i)
{
    const am_merge_recipe *r = &plan->recipe;
    const double *rows[AM_MAX_MODELS];
    int n = 0;
    if (r->method->check == NULL) {
        return 0;
    }
    for (int m = 0; m < r->n_slots; m++) {
        if (plan->input[m + r->has_base].tensor[i] >= 0) {
            rows[n++] = plan->model_param + (i * r->n_slots + m) * r->n_params;
        }
    }
    const am_tensor *t = &plan->match.pieces.t[i];
    am_unit unit = {.scope = r->scope,
                    .semantics = r->semantics,
                    .models = n,
                    .param = plan->param + i * r->n_params,
                    .model_param = rows};
    am_unit_shape(r->method, t, &unit);
    const am_tile tile = {.models = n,
                          .unit = &unit,
                          .param = plan->param + i * r->n_params,
                          .model_param = rows,
                          .layer = plan->match.layer[i],
                          .layers = plan->match.layers};
    const char *wrong = r->method->check(&tile);
    return wrong == NULL ? 0
                         : am_node_fail(am_yaml_root(r->yaml), "tensor '%s': %s", t->name, wrong);
}

/* The recipe's `dtype`, or that of the first input that has the tensor: the base, if there is one.
 */
static am_dtype work_of(const am_merge_plan *plan, int64_t i)
{
    for (int k = 0; plan->recipe.work == AM_DTYPE_COUNT && k < plan->match.n_inputs; k++) {
        const am_merge_input *in = &plan->input[k];
        if (in->tensor[i] >= 0) {
            return in->source->tensors->t[in->tensor[i]].dtype;
        }
    }
    return plan->recipe.work;
}

static int resolve_parameters(am_merge_plan *plan)
{
    const int64_t n = plan->match.pieces.n, n_params = plan->recipe.n_params;
    plan->param = am_new(n * n_params + 1, sizeof *plan->param, "parameters");
    plan->model_param = am_new(n * n_params * plan->recipe.n_slots + 1, sizeof *plan->model_param,
                               "parameters of models");
    plan->work = am_new(n + 1, sizeof *plan->work, "types of tensors");
    int rc =
        plan->param != NULL && plan->model_param != NULL && plan->work != NULL ? 0 : AM_E_NOMEM;
    for (int64_t i = 0; rc == 0 && i < n; i++) {
        plan->work[i] = work_of(plan, i);
        if (!plan->match.copy[i]) {
            AM_KEEP(resolve_piece(plan, i));
            AM_KEEP(check_piece(plan, i));
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
    rc = bind_second(out);
    AM_KEEP(resolve_parameters(out));
    AM_AGREE(comm);
    AM_TRY(check_origins_all(comm, out));
    const int n_base = out->recipe.has_base;
    out->job = (am_merge_job){.method = out->recipe.method,
                              .base = n_base ? &out->input[0] : NULL,
                              .n_models = out->recipe.n_slots,
                              .models = out->input + n_base,
                              .aux = out->recipe.method->needs_aux ? out->second : NULL,
                              .gram = out->recipe.method->needs_gram ? out->second : NULL,
                              .param = out->param,
                              .model_param = out->model_param,
                              .grid = out->recipe.has_grid ? &out->recipe.grid : NULL,
                              .scope = out->recipe.scope,
                              .semantics = out->recipe.semantics,
                              .work = out->work,
                              .seed = out->recipe.seed,
                              .layer = out->match.layer,
                              .layers = out->match.layers,
                              .copy = out->match.copy,
                              .block = options->block,
                              .progress = "merge",
                              .allow_nonfinite = options->allow_nonfinite};
cleanup:
    return rc;
}

void am_merge_plan_free(am_merge_plan *plan)
{
    for (int k = 0; k < plan->match.n_inputs; k++) {
        if (plan->view != NULL) {
            am_view_free(&plan->view[k]);
        }
        if (plan->input != NULL) {
            free((void *)plan->input[k].tensor);
        }
    }
    for (int m = 0; plan->second != NULL && m < plan->recipe.n_slots; m++) {
        free((void *)plan->second[m].tensor);
    }
    for (int k = 0; plan->row_order != NULL && k < plan->inputs.n; k++) {
        am_vocab_source_free(&plan->row_order[k]);
    }
    free(plan->row_order);
    am_vocab_rows_free(&plan->rows);
    am_inputs_close(&plan->inputs);
    am_match_free(&plan->match);
    am_merge_recipe_free(&plan->recipe);
    am_yaml_free(&plan->yaml);
    am_json_free(&plan->resolved);
    free(plan->view);
    free(plan->behind);
    free(plan->source);
    free(plan->input);
    free(plan->second);
    free(plan->param);
    free(plan->work);
    free(plan->model_param);
    *plan = (am_merge_plan){0};
}
