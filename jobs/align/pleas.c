/* The job of `allmerge pleas`: see pleas.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/align/pleas.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "jobs/align/heads.h"
#include "jobs/align/networks.h"
#include "jobs/merge/memory.h"
#include "jobs/training/fit.h"
#include "jobs/training/job.h"
#include "jobs/training/run_folder.h"
#include "jobs/training/suite/weights.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/runtime.h"
#include "solver/align/pleas.h"

static const char *const matches[] = {"weights", "activations", "both"};

enum { MODELS = 2 };

typedef struct job {
    const am_pleas_request *request;
    am_train_recipe recipe;
    char *trunk_path[MODELS], *heads_path[MODELS]; /* owned */
    am_net net;                                    /* of both */
    am_param_layout trunk;                         /* of that, f64 */
    am_align align;
    am_widen widen;
    am_head_pair heads;
    char *text, *wide_recipe; /* owned: the command, and the recipe of the output */
    char **inputs;            /* owned */
    double *block[MODELS], *merged;
    am_fit_error *error; /* [net.n + heads.n] owned */
    am_align_result result;
    am_pair_sums sums;
    am_run_folder folder;
} job;

/* ---- what is asked for ---- */

/* The recipe with the wide network as a list of layers, and with the merged trunk and heads as what
 * training goes on from: base and heads of the narrow one do not fit. */
static int resolve_wide(job *j)
{
    am_train_recipe *recipe = &j->recipe;
    const am_train_recipe narrow = *recipe;
    char *folder = am_clean_path(j->request->output);
    char *trunk = folder != NULL ? am_text("%s/trunk.h5", folder) : NULL;
    char *heads = folder != NULL ? am_text("%s/heads.h5", folder) : NULL;
    int rc = trunk == NULL || heads == NULL ? AM_E_NOMEM : AM_OK;
    recipe->base_checkpoint = trunk;
    recipe->base_task = NULL;
    recipe->heads_checkpoint = heads;
    recipe->heads_random = false;
    recipe->model.preset = NULL;
    recipe->model.net = j->widen.net;
    recipe->model.net.freeze = narrow.model.net.freeze;
    recipe->model.net.n_freeze = narrow.model.net.n_freeze;
    AM_KEEP(am_train_recipe_resolve(recipe));
    recipe->base_checkpoint = narrow.base_checkpoint;
    recipe->base_task = narrow.base_task;
    recipe->heads_checkpoint = narrow.heads_checkpoint;
    recipe->heads_random = narrow.heads_random;
    recipe->model.preset = narrow.model.preset;
    recipe->model.net = narrow.model.net;
    free(folder);
    free(trunk);
    free(heads);
    return rc;
}

static int describe(job *j)
{
    const am_pleas_request *r = j->request;
    const int rc = resolve_wide(j);
    j->wide_recipe = rc == AM_OK ? am_text("%s", j->recipe.text) : NULL;
    j->text = am_text(
        "pleas --budget %.17g --ridge %.17g --match %s --seed %" PRId64 " --sweeps %" PRId64
        " --split %s --samples %" PRId64 " --batch %" PRId64 " --micro-batches %" PRId64,
        r->budget, r->ridge, matches[r->match], r->seed, r->sweeps,
        am_dataset_split_name[r->on.split], r->on.samples, r->on.batch, r->on.micro_batches);
    return j->wide_recipe == NULL || j->text == NULL ? (rc != AM_OK ? rc : AM_E_NOMEM) : AM_OK;
}

static int check(const job *j)
{
    if (j->recipe.model.lora.r > 0) {
        return am_fail(AM_E_RECIPE, "pleas: adapters are bound to the layers of their base: take "
                                    "model.lora out of the recipe");
    }
    return j->request->budget > 1 && j->widen.n_grown == 0
               ? am_fail(AM_E_RECIPE,
                         "pleas: no layer of this network can grow: heads of attention, and what "
                         "goes through a norm over features or into an image of given channels, "
                         "keep their width; take --budget 1")
               : AM_OK;
}

static int name_inputs(job *j, const am_args *args)
{
    const int n = 2 * MODELS + j->recipe.n_tasks;
    int at = 0, rc = AM_OK;
    j->inputs = am_new(n + 1, sizeof *j->inputs, "paths");
    if (j->inputs == NULL) {
        return AM_E_NOMEM;
    }
    for (int s = 0; s < MODELS; s++) {
        char *folder = am_clean_path(args->positional[1 + s]);
        j->trunk_path[s] = folder != NULL ? am_text("%s/trunk.h5", folder) : NULL;
        j->heads_path[s] = folder != NULL ? am_text("%s/heads.h5", folder) : NULL;
        free(folder);
        if (j->trunk_path[s] == NULL || j->heads_path[s] == NULL) {
            return AM_E_NOMEM;
        }
        j->inputs[at++] = am_text("%s", j->trunk_path[s]);
        j->inputs[at++] = am_text("%s", j->heads_path[s]);
    }
    for (int i = 0; i < j->recipe.n_tasks; i++) {
        j->inputs[at++] = am_text("%s/%s.h5", j->recipe.folder, j->recipe.task[i]);
    }
    for (int i = 0; i < n; i++) {
        rc = j->inputs[i] == NULL ? AM_E_NOMEM : rc;
    }
    return rc;
}

static int shape_all(job *j, const am_args *args)
{
    static const am_tensor_table no_heads = {0};
    const am_pleas_request *r = j->request;
    int rc = AM_OK;
    AM_TRY(am_job_recipe_all(args, r->on.task, &j->recipe));
    AM_TRY(am_networks_shape_all(am_world(), &j->recipe, "pleas", 0, &j->net, &j->trunk));
    rc = am_align_find(&j->net, &no_heads, false, &j->align);
    AM_KEEP(rc != AM_OK ? rc : am_widen_make(&j->net, &j->align, r->budget, &j->widen));
    AM_KEEP(rc != AM_OK ? rc : check(j));
    AM_KEEP(rc != AM_OK ? rc : describe(j));
    AM_KEEP(rc != AM_OK ? rc : name_inputs(j, args));
    AM_AGREE(am_world());
    AM_TRY(am_head_pair_open_all(am_world(), (const char *const *)j->heads_path,
                                 am_shape_features(&j->net.out),
                                 am_shape_features(&j->widen.net.out), &j->heads));
cleanup:
    return rc;
}

/* ---- work ---- */

static int load_all(job *j)
{
    int rc = AM_OK;
    for (int s = 0; s < MODELS; s++) {
        j->block[s] = am_new(j->trunk.n + 1, sizeof *j->block[s], "a model");
        AM_KEEP(j->block[s] == NULL ? AM_E_NOMEM : AM_OK);
    }
    j->merged = am_new(j->widen.trunk.n + 1, sizeof *j->merged, "the merged model");
    j->error = am_new(j->net.n + j->heads.n, sizeof *j->error, "fits");
    AM_KEEP(j->merged == NULL || j->error == NULL ? AM_E_NOMEM : AM_OK);
    AM_AGREE(am_world());
    AM_TRY(am_head_pair_load_all(am_world(), (const char *const *)j->heads_path, &j->heads));
    for (int s = 0; s < MODELS; s++) {
        AM_TRY(am_trunk_check_all(am_world(), j->trunk_path[s], &j->trunk.tensors));
        AM_TRY(am_networks_load_all(am_world(), j->trunk_path[s], &j->trunk.tensors,
                                    j->trunk.offset, j->block[s]));
    }
cleanup:
    return rc;
}

static int merge_all(job *j)
{
    const am_pleas_request *r = j->request;
    int rc = AM_OK;
    AM_TRY(am_pair_sums_all(&j->recipe, j->trunk_path[0], j->trunk_path[1], &j->sums));
    const am_align_options how = {.by = (am_align_by)r->match,
                                  .cross = j->sums.cross,
                                  .own = j->sums.own,
                                  .seed = r->seed,
                                  .sweeps = r->sweeps};
    AM_TRY(am_align_match_all(am_world(), &j->align, j->block[0], j->block[1], &how, &j->result));
    /* Matching has put the second one into the order of the first: have it as it was. */
    AM_TRY(am_networks_load_all(am_world(), j->trunk_path[1], &j->trunk.tensors, j->trunk.offset,
                                j->block[1]));
    rc = am_widen_pair(&j->widen, j->sums.cross, j->sums.own);
    AM_AGREE(am_world());
    const am_pleas pleas = {.widen = &j->widen,
                            .layout = &j->sums.layout,
                            .sums = j->sums.whole,
                            .block = {j->block[0], j->block[1]},
                            .ridge = r->ridge,
                            .merged = j->merged,
                            .n_heads = j->heads.n,
                            .head = j->heads.head,
                            .error = j->error};
    AM_TRY(am_pleas_merge_all(am_world(), &pleas));
cleanup:
    return rc;
}

/* ---- writing ---- */

/* A block of f64 as a checkpoint in the dtype of the recipe. */
static int save_all(const job *j, const char *name, const am_tensor_table *tensors,
                    const int64_t *offset, int64_t n, const double *block)
{
    const am_ckpt_options options = {
        .overwrite = true, .recipe = j->wide_recipe, .inputs = (const char *const *)j->inputs};
    am_tensor_table table = {0};
    float *narrow = NULL;
    char path[AM_RUN_PATH];
    int rc = am_run_folder_file(&j->folder, path, "%s", name);
    AM_KEEP(am_tensor_table_copy(tensors, &table));
    for (int64_t i = 0; rc == AM_OK && i < table.n; i++) {
        table.t[i].dtype = j->recipe.dtype;
    }
    if (rc == AM_OK && j->recipe.dtype == AM_DTYPE_F32) {
        narrow = am_new(n + 1, sizeof *narrow, "a model");
        rc = narrow == NULL ? AM_E_NOMEM : AM_OK;
        for (int64_t i = 0; rc == AM_OK && i < n; i++) {
            narrow[i] = (float)block[i];
        }
    }
    AM_AGREE(am_world());
    AM_TRY(am_ckpt_save_all(am_world(), path, &table, offset,
                            narrow != NULL ? (const void *)narrow : block, &options));
cleanup:
    am_tensor_table_free(&table);
    free(narrow);
    return rc;
}

static double relative(double squares, double of)
{
    return of > 0 ? sqrt(squares / of) : 0;
}

static void write_layers(const job *j, am_json *json)
{
    am_json_array(json, "layers");
    for (int i = 0; i < j->net.n + j->heads.n; i++) {
        const am_fit_error *e = &j->error[i];
        if (i < j->net.n && j->net.node[i].layer->product_terms == NULL) {
            continue;
        }
        am_json_object(json, NULL);
        am_json_string(json, "layer",
                       i < j->net.n ? j->net.node[i].name : j->heads.head[i - j->net.n].name);
        am_json_real(json, "error_before", relative(e->before, e->wanted));
        am_json_real(json, "error_after", relative(e->after, e->wanted));
        am_json_end_object(json);
    }
    am_json_end_array(json);
}

static void write_groups(const job *j, am_json *json)
{
    am_json_array(json, "groups");
    for (int g = 0; g < j->align.n_groups; g++) {
        const am_align_group *group = &j->align.group[g];
        const am_widen_field *field = &j->widen.field[group->field[0]];
        am_json_object(json, NULL);
        am_json_string(json, "layer", group->name);
        am_json_bool(json, "is_attention", group->is_attention);
        am_json_int(json, "units", j->align.field[group->field[0]].n);
        am_json_int(json, "merged_units", field->n);
        am_json_int(json, "pairs", field->pairs);
        am_json_end_object(json);
    }
    am_json_end_array(json);
}

static int report_all(const job *j)
{
    const am_pleas_request *r = j->request;
    const am_align_result *result = &j->result;
    am_json json = {0};
    int rc = AM_OK;
    am_json_object(&json, NULL);
    am_json_string(&json, "job", "pleas");
    am_json_int(&json, "seed", r->seed);
    am_json_real(&json, "budget", r->budget);
    am_json_real(&json, "ridge", r->ridge);
    am_json_string(&json, "match", matches[r->match]);
    am_json_string(&json, "split", am_dataset_split_name[r->on.split]);
    am_json_int(&json, "samples", j->sums.samples);
    am_json_int(&json, "parameters", j->trunk.n);
    am_json_int(&json, "merged_parameters", j->widen.trunk.n);
    am_json_real(&json, "activation_cosine",
                 result->active2 > 0 ? result->active_after / result->active2 : 0);
    am_json_int(&json, "sweeps", result->sweeps);
    am_json_bool(&json, "is_converged", result->is_converged);
    write_groups(j, &json);
    write_layers(j, &json);
    am_json_end_object(&json);
    rc = am_json_finish(&json);
    AM_AGREE(am_world());
    AM_TRY(am_train_report_memory_all(am_world()));
    AM_TRY(am_run_folder_text_all(am_world(), &j->folder, "result.json", json.text));
    if (j->align.n_groups > 0 && !result->is_converged) {
        am_warn("pleas: still gaining after %" PRId64 " sweeps: raise --sweeps", result->sweeps);
    }
    am_info("model: %s/trunk.h5, heads.h5; its recipe: %s/recipe.yml", j->folder.path,
            j->folder.path);
    am_result(&json);
cleanup:
    am_json_free(&json);
    return rc;
}

static int make_all(job *j)
{
    const am_head_file *heads = &j->heads.merged;
    int rc = AM_OK;
    AM_TRY(merge_all(j));
    AM_TRY(save_all(j, "heads.h5", &heads->tensors, heads->offset, heads->n, heads->block));
    AM_TRY(save_all(j, "trunk.h5", &j->widen.trunk.tensors, j->widen.trunk.offset, j->widen.trunk.n,
                    j->merged));
    AM_TRY(report_all(j));
cleanup:
    return rc;
}

static void job_free(job *j)
{
    am_run_folder_close(&j->folder);
    am_pair_sums_free(&j->sums);
    am_head_pair_free(&j->heads);
    if (j->widen.from != NULL) {
        am_widen_free(&j->widen);
    }
    am_align_free(&j->align);
    am_param_layout_free(&j->trunk);
    am_net_free(&j->net);
    for (int s = 0; s < MODELS; s++) {
        free(j->trunk_path[s]);
        free(j->heads_path[s]);
        free(j->block[s]);
    }
    am_train_recipe_inputs_free(j->inputs);
    am_train_recipe_free(&j->recipe);
    free(j->merged);
    free(j->error);
    free(j->text);
    free(j->wide_recipe);
}

int am_pleas_run_all(const am_args *args, const am_pleas_request *request)
{
    job j = {.request = request, .folder = {.lock = -1}};
    int rc = AM_OK;
    am_memory_keep_no_holes();
    AM_TRY(shape_all(&j, args));
    const int64_t bytes = am_pleas_work_bytes(&j.align, &j.widen, j.heads.classes) +
                          am_head_pair_bytes(&j.heads, j.recipe.task, j.recipe.n_tasks);
    rc = am_pair_adapt(&request->on, &j.align, true, true, bytes, &j.recipe);
    AM_AGREE(am_world());
    AM_TRY(am_train_fit_all(am_world(), &j.recipe, AM_JOB_ALIGN, am_world_size(),
                            request->on.memory, NULL, NULL));
    AM_TRY(load_all(&j)); /* what is wrong with it is known before a folder is made */
    AM_TRY(am_run_folder_open_all(am_world(), request->output, j.text, j.wide_recipe,
                                  (const char *const *)j.inputs, request->overwrite, &j.folder));
    if (j.folder.is_finished) { /* the same on all ranks */
        am_info("%s is finished: nothing to do (--overwrite starts over)", j.folder.path);
        AM_TRY(am_run_folder_result_all(am_world(), &j.folder));
    } else {
        AM_TRY(make_all(&j));
    }
cleanup:
    job_free(&j);
    return rc;
}
