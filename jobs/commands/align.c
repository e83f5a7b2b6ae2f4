/* allmerge align RECIPE MODEL --to BASE -o OUT: the same network as MODEL, its units in the order
 * in which they are most like those of BASE (solver/align/). SPDX-License-Identifier: BSD-3-Clause
 */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "io/checkpoint/checkpoint.h"
#include "io/file.h"
#include "jobs/align/networks.h"
#include "jobs/align/samples.h"
#include "jobs/training/fit.h"
#include "jobs/training/job.h"
#include "jobs/training/suite/weights.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/partition.h"
#include "mpi/runtime.h"

typedef struct align_options {
    char *to, *output, *heads, *heads_to, *heads_output;
    int64_t features, seed, sweeps;
    int start, match;
    am_pair_request on;
    bool overwrite;
} align_options;

enum { START_KNOWN, START_GIVEN };

static const am_param options[] = {
    {.key = "to",
     .type = AM_PARAM_STRING,
     .offset = offsetof(align_options, to),
     .help = "checkpoint whose order is taken"},
    {.key = "output",
     .type = AM_PARAM_STRING,
     .offset = offsetof(align_options, output),
     .help = "the model in that order: NAME.h5, NAME.safetensors, or a folder"},
    {.key = "heads",
     .type = AM_PARAM_STRING,
     .offset = offsetof(align_options, heads),
     .fallback = "",
     .help = "the model's heads, to move with its last value; without: that keeps its order"},
    {.key = "heads-to",
     .type = AM_PARAM_STRING,
     .offset = offsetof(align_options, heads_to),
     .fallback = "",
     .help = "heads that those should be like; without: they only follow"},
    {.key = "heads-output",
     .type = AM_PARAM_STRING,
     .offset = offsetof(align_options, heads_output),
     .fallback = "",
     .help = "the heads in the new order"},
    {.key = "match",
     .type = AM_PARAM_CHOICE,
     .offset = offsetof(align_options, match),
     .fallback = "weights",
     .choices = "weights|activations|both",
     .help = "what is to be alike; activations: on the samples of the recipe's tasks"},
    {.key = "features",
     .type = AM_PARAM_INT,
     .offset = offsetof(align_options, features),
     .fallback = "0",
     .low = 0,
     .high = INT32_MAX,
     .help = "numbers of a sample; 0: as the recipe's first data set says"},
    {.key = "seed",
     .type = AM_PARAM_INT,
     .offset = offsetof(align_options, seed),
     .fallback = "0",
     .low = 0,
     .high = 0x1p53,
     .help = "of the order in which groups of units are visited"},
    {.key = "sweeps",
     .type = AM_PARAM_INT,
     .offset = offsetof(align_options, sweeps),
     .fallback = "100",
     .low = 1,
     .high = 1 << 20,
     .help = "over all groups, at most"},
    {.key = "start",
     .type = AM_PARAM_CHOICE,
     .offset = offsetof(align_options, start),
     .fallback = "known",
     .choices = "known|given",
     .help = "known: group after group from the samples on; given: the model as it is"},
    AM_PAIR_OPTIONS(align_options),
    AM_OPTION_OVERWRITE(align_options),
    {0}};

/* What is aligned, whole on every rank. */
typedef struct job {
    const align_options *given;
    const char *model_path;
    am_train_recipe recipe;
    am_net net;
    am_param_layout trunk;
    am_ckpt *model, *heads; /* heads: NULL without */
    am_tensor_table heads_f64;
    int64_t *heads_offset; /* [heads] in a block */
    am_align align;
    double *base_block, *model_block; /* [align.n] */
    am_pair_sums sums;                /* of activations; zeroed by weights alone */
    char *text;                       /* owned: the command with what changes the output */
    char *all;                        /* owned: that and the recipe, for the manifest */
    char *of_heads;                   /* owned: the same of the heads */
    char **inputs;                    /* owned */
    bool was_finished;                /* by an earlier attempt: there is no result */
    am_align_result result;
} job;

/* ---- the network and its weights ---- */

static int check_options(const am_args *args)
{
    static const char *const of_samples[] = {"split", "samples", "batch", "micro_batches", NULL};
    static const char *const of_sweeps[] = {"seed", "sweeps", "start", NULL};
    const align_options *o = args->options;
    const bool moves = o->heads != NULL, named = o->heads_output != NULL;
    if (moves != named) {
        return am_fail(AM_E_USAGE, "--heads HEADS and --heads-output OUT go together: the aligned "
                                   "model needs its heads in the new order");
    }
    if (o->heads_to != NULL && !moves) {
        return am_fail(AM_E_USAGE, "--heads-to needs --heads and --heads-output");
    }
    if (o->features > 0 && o->match != AM_BY_WEIGHTS) {
        return am_fail(AM_E_USAGE, "--features goes with --match weights: activations are those "
                                   "of the samples");
    }
    return o->match == AM_BY_WEIGHTS
               ? am_args_refuse(args, options, of_samples, "goes with --match activations or both")
           : o->match == AM_BY_ACTIVATIONS
               ? am_args_refuse(args, options, of_sweeps,
                                "goes with --match weights or both: by activations there is one "
                                "best order")
               : AM_OK;
}

/* What the output is made by. */
static int describe(job *j)
{
    static const char *const by[] = {"weights", "activations", "both"};
    static const char *const split[] = {"train", "validation", "test"};
    const align_options *o = j->given;
    char *samples =
        o->match == AM_BY_WEIGHTS
            ? am_text("%s", "")
            : am_text(" --split %s --samples %" PRId64 " --batch %" PRId64
                      " --micro-batches %" PRId64,
                      split[o->on.split], o->on.samples, o->on.batch, o->on.micro_batches);
    if (samples != NULL) {
        j->text = am_text("align --match %s --seed %" PRId64 " --sweeps %" PRId64
                          " --start %s --features %" PRId64 "%s",
                          by[o->match], o->seed, o->sweeps,
                          o->start == START_GIVEN ? "given" : "known", o->features, samples);
    }
    free(samples);
    if (j->text != NULL) {
        j->all = am_text("%s\n%s", j->text, j->recipe.text);
        j->of_heads = am_text("heads of %s\n%s", j->text, j->recipe.text);
    }
    return j->all == NULL || j->of_heads == NULL ? AM_E_NOMEM : AM_OK;
}

/* All that decides on the output: checkpoints, and data sets if it is activations. */
static int name_inputs(job *j)
{
    const align_options *o = j->given;
    const char *const path[] = {j->model_path, o->to, o->heads, o->heads_to};
    const int n = (int)(sizeof path / sizeof *path);
    const int sets = o->match == AM_BY_WEIGHTS ? 0 : j->recipe.n_tasks;
    int at = 0;
    j->inputs = am_new(n + sets + 1, sizeof *j->inputs, "paths");
    bool is_made = j->inputs != NULL;
    for (int i = 0; is_made && i < n; i++) {
        if (path[i] != NULL) {
            j->inputs[at] = am_text("%s", path[i]);
            is_made = j->inputs[at++] != NULL;
        }
    }
    for (int i = 0; is_made && i < sets; i++) {
        j->inputs[at] = am_text("%s/%s.h5", j->recipe.folder, j->recipe.task[i]);
        is_made = j->inputs[at++] != NULL;
    }
    return is_made ? AM_OK : AM_E_NOMEM;
}

static int open_heads_all(MPI_Comm comm, job *j)
{
    int rc = AM_OK;
    if (j->given->heads == NULL) {
        return AM_OK;
    }
    AM_TRY(am_ckpt_open_all(comm, j->given->heads, &j->heads));
    rc = am_networks_check_heads(j->heads, am_shape_features(&j->net.out));
    AM_KEEP(am_tensor_table_copy(am_ckpt_tensors(j->heads), &j->heads_f64));
    j->heads_offset = am_new(j->heads_f64.n + 1, sizeof *j->heads_offset, "heads");
    AM_KEEP(j->heads_offset == NULL ? AM_E_NOMEM : AM_OK);
    int64_t at = j->trunk.n;
    for (int64_t i = 0; rc == AM_OK && i < j->heads_f64.n; i++) {
        j->heads_f64.t[i].dtype = AM_DTYPE_F64;
        j->heads_offset[i] = at;
        at += j->heads_f64.t[i].numel;
    }
    AM_AGREE(comm);
cleanup:
    return rc;
}

static int load_all(MPI_Comm comm, job *j)
{
    const align_options *o = j->given;
    int rc = AM_OK;
    AM_TRY(am_ckpt_open_all(comm, j->model_path, &j->model));
    AM_TRY(open_heads_all(comm, j));
    rc = am_trunk_check(j->model, &j->trunk.tensors);
    AM_KEEP(am_align_find(&j->net, j->heads != NULL ? &j->heads_f64 : NULL, o->heads_to != NULL,
                          &j->align));
    j->base_block = am_new(j->align.n + 1, sizeof *j->base_block, "the base");
    j->model_block = am_new(j->align.n + 1, sizeof *j->model_block, "the model");
    AM_KEEP(j->base_block == NULL || j->model_block == NULL ? AM_E_NOMEM : AM_OK);
    AM_KEEP(am_pair_adapt(&o->on, &j->align, o->match != AM_BY_WEIGHTS, false,
                          am_align_match_bytes(&j->align), &j->recipe));
    AM_AGREE(comm);
    AM_TRY(am_train_fit_all(comm, &j->recipe, AM_JOB_ALIGN, am_world_size(), o->on.memory, NULL,
                            NULL));
    AM_TRY(am_networks_load_all(comm, o->to, &j->trunk.tensors, j->trunk.offset, j->base_block));
    AM_TRY(am_networks_load_all(comm, j->model_path, &j->trunk.tensors, j->trunk.offset,
                                j->model_block));
    if (j->heads != NULL) {
        AM_TRY(
            am_networks_load_all(comm, o->heads, &j->heads_f64, j->heads_offset, j->model_block));
    }
    if (o->heads_to != NULL) {
        AM_TRY(
            am_networks_load_all(comm, o->heads_to, &j->heads_f64, j->heads_offset, j->base_block));
    }
cleanup:
    return rc;
}

/* ---- writing ---- */

/* out := in with its axes in the new order, element by element as they are stored. */
static int reorder(const am_align *a, int tensor, int64_t bytes, const unsigned char *in,
                   unsigned char *out)
{
    const am_align_tensor *t = &a->tensor[tensor];
    int64_t *index[AM_LAYER_PARAM_DIMS] = {NULL}, at[AM_LAYER_PARAM_DIMS] = {0};
    int rc = AM_OK;
    for (int d = 0; d < t->ndim; d++) {
        index[d] = am_new(t->shape[d] + 1, sizeof *index[d], "an order of features");
        rc = rc != AM_OK || index[d] == NULL ? AM_E_NOMEM : AM_OK;
        if (rc == AM_OK) {
            am_align_index(a, tensor, d, index[d]);
        }
    }
    for (int64_t i = 0; rc == AM_OK && i < t->numel; i++) {
        int64_t from = 0;
        for (int d = 0; d < t->ndim; d++) {
            from = from * t->shape[d] + index[d][at[d]];
        }
        memcpy(out + i * bytes, in + from * bytes, (size_t)bytes);
        for (int d = t->ndim - 1; d >= 0 && ++at[d] == t->shape[d]; d--) {
            at[d] = 0;
        }
    }
    for (int d = 0; d < t->ndim; d++) {
        free(index[d]);
    }
    return rc;
}

static int write_tensor(const am_align *a, int number, const am_source *source, const am_sink *sink,
                        int64_t tensor)
{
    const am_tensor *t = &source->tensors->t[tensor];
    const int64_t bytes = am_dtype_bytes(t->dtype);
    unsigned char *in = am_new(t->numel + 1, (size_t)bytes, "a tensor");
    unsigned char *out = am_new(t->numel + 1, (size_t)bytes, "a tensor");
    int rc = in == NULL || out == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(source->load_raw(source->self, tensor, 0, t->numel, in));
    AM_KEEP(reorder(a, number, bytes, in, out));
    AM_KEEP(sink->store_raw(sink->self, tensor, 0, t->numel, out));
    if (sink->flush != NULL) {
        AM_KEEP(sink->flush(sink->self));
    }
    free(in);
    free(out);
    return rc;
}

/* This rank's tensors: whole ones, spread by their bytes. */
static int write_tensors(const am_align *a, int first, am_ckpt *ckpt, am_ckpt_writer *writer)
{
    const am_tensor_table *table = am_ckpt_tensors(ckpt);
    int64_t *cost = am_new(table->n + 1, sizeof *cost, "tensors");
    int *owner = am_new(table->n + 1, sizeof *owner, "tensors");
    am_source source = {0};
    am_sink sink = {0};
    int rc = cost == NULL || owner == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(am_ckpt_source(ckpt, 0, &source));
    AM_KEEP(am_ckpt_sink(writer, &sink));
    for (int64_t i = 0; rc == AM_OK && i < table->n; i++) {
        cost[i] = table->t[i].numel * am_dtype_bytes(table->t[i].dtype);
    }
    if (rc == AM_OK) {
        am_part_balance(cost, table->n, am_world_size(), owner);
    }
    for (int64_t i = 0; rc == AM_OK && i < table->n; i++) {
        if (owner[i] == am_world_rank()) {
            rc = write_tensor(a, first + (int)i, &source, &sink, i);
        }
    }
    free(cost);
    free(owner);
    return rc;
}

/* The attributes of the input, and how the output is made of it. */
static int describe_output(const job *j, const am_meta *from, am_meta *out)
{
    int rc = AM_OK;
    for (int64_t i = 0; i < from->n; i++) {
        AM_KEEP(am_meta_set(out, from->key[i], from->value[i]));
    }
    AM_KEEP(am_meta_set(out, "align.command", j->text));
    AM_KEEP(am_meta_set(out, "align.recipe", j->recipe.text));
    return rc;
}

/* writer NULL: an earlier attempt has made it. */
static int create_all(MPI_Comm comm, const job *j, am_ckpt *ckpt, const char *path,
                      const char *recipe, am_ckpt_writer **writer)
{
    am_meta meta = {0};
    const am_ckpt_options write = {.overwrite = j->given->overwrite,
                                   .accept_finished = true,
                                   .meta = &meta,
                                   .recipe = recipe,
                                   .inputs = (const char *const *)j->inputs};
    int rc = describe_output(j, am_ckpt_meta(ckpt), &meta);
    AM_AGREE(comm);
    AM_TRY(am_ckpt_create_all(comm, path, am_ckpt_tensors(ckpt), &write, writer));
cleanup:
    am_meta_free(&meta);
    return rc;
}

static int match_all(MPI_Comm comm, job *j)
{
    const align_options *o = j->given;
    int rc = AM_OK;
    if (o->match != AM_BY_WEIGHTS) {
        AM_TRY(am_pair_sums_all(&j->recipe, o->to, j->model_path, &j->sums));
    }
    const am_align_options how = {.by = (am_align_by)o->match,
                                  .cross = j->sums.cross,
                                  .own = j->sums.own,
                                  .seed = o->seed,
                                  .sweeps = o->sweeps,
                                  .is_rough = o->start == START_GIVEN};
    AM_TRY(am_align_match_all(comm, &j->align, j->base_block, j->model_block, &how, &j->result));
cleanup:
    return rc;
}

/* Outputs are laid out first, so that what is in their way is known before the work. A job that was
 * killed between its two outputs makes the one that is missing. */
static int align_all(MPI_Comm comm, job *j)
{
    const align_options *o = j->given;
    am_ckpt_writer *trunk = NULL, *heads = NULL;
    int rc = create_all(comm, j, j->model, o->output, j->all, &trunk);
    if (rc == AM_OK && j->heads != NULL) { /* agreed */
        rc = create_all(comm, j, j->heads, o->heads_output, j->of_heads, &heads);
    }
    j->was_finished = rc == AM_OK && trunk == NULL && heads == NULL; /* the same on every rank */
    if (rc == AM_OK && !j->was_finished) {
        rc = match_all(comm, j);
    }
    if (heads != NULL) { /* before the trunk, whose name says that all is there */
        AM_KEEP(write_tensors(&j->align, (int)j->trunk.tensors.n, j->heads, heads));
        rc = am_ckpt_publish_all(&heads, rc);
    }
    if (trunk != NULL) {
        AM_KEEP(write_tensors(&j->align, 0, j->model, trunk));
        rc = am_ckpt_publish_all(&trunk, rc);
    }
    return rc;
}

/* ---- the result ---- */

static double ratio(double product, double norms)
{
    return norms > 0 ? product / norms : 0;
}

static void write_groups(const am_align *a, am_json *json)
{
    am_json_array(json, "groups");
    for (int g = 0; g < a->n_groups; g++) {
        const am_align_group *group = &a->group[g];
        int64_t units = 0, moved = 0;
        for (int k = 0; k < group->n_fields; k++) {
            const am_align_field *field = &a->field[group->field[k]];
            units += field->n;
            for (int64_t i = 0; i < field->n; i++) {
                moved += field->order[i] != i;
            }
        }
        am_json_object(json, NULL);
        am_json_string(json, "layer", group->name);
        am_json_bool(json, "is_attention", group->is_attention);
        am_json_int(json, "units", units);
        am_json_int(json, "moved", moved);
        am_json_end_object(json);
    }
    am_json_end_array(json);
}

static void write_result(const job *j, am_json *json)
{
    const am_align_result *r = &j->result;
    const double norms = sqrt(r->base2) * sqrt(r->model2);
    am_json_real(json, "cosine_before", ratio(r->before, norms));
    am_json_real(json, "cosine_after", ratio(r->after, norms));
    if (j->sums.whole != NULL) {
        am_json_int(json, "samples", j->sums.samples);
        am_json_real(json, "activation_cosine_before", ratio(r->active_before, r->active2));
        am_json_real(json, "activation_cosine_after", ratio(r->active_after, r->active2));
    }
    am_json_real(json, "objective_before", r->objective_before);
    am_json_real(json, "objective_after", r->objective_after);
    am_json_int(json, "sweeps", r->sweeps);
    am_json_bool(json, "is_converged", r->is_converged);
    write_groups(&j->align, json);
}

static int report(const job *j)
{
    const am_align_result *r = &j->result;
    am_json json = {0};
    am_json_object(&json, NULL);
    am_json_string(&json, "output", j->given->output);
    if (j->heads != NULL) {
        am_json_string(&json, "heads_output", j->given->heads_output);
    }
    am_json_bool(&json, "was_finished", j->was_finished);
    if (!j->was_finished) {
        write_result(j, &json);
    }
    am_json_end_object(&json);
    if (j->was_finished) {
        am_info("%s is there, made by this recipe from these inputs: nothing to do (--overwrite "
                "makes it again)",
                j->given->output);
    } else if (j->align.n_groups == 0) {
        am_warn("align: no layer's units can change places: the output is the model");
    } else if (!r->is_converged) {
        am_warn("align: still gaining after %lld sweeps: raise --sweeps", (long long)r->sweeps);
    }
    return am_result_end(&json);
}

static void job_free(job *j)
{
    am_train_recipe_free(&j->recipe);
    am_net_free(&j->net);
    am_param_layout_free(&j->trunk);
    am_ckpt_close(&j->model);
    am_ckpt_close(&j->heads);
    am_tensor_table_free(&j->heads_f64);
    free(j->heads_offset);
    am_align_free(&j->align);
    am_pair_sums_free(&j->sums);
    free(j->text);
    free(j->all);
    free(j->of_heads);
    am_train_recipe_inputs_free(j->inputs);
    free(j->base_block);
    free(j->model_block);
}

static int run_all(const am_args *args, int *exit_status)
{
    const align_options *o = args->options;
    MPI_Comm comm = am_world();
    job j = {.given = o, .model_path = args->positional[1]};
    int rc = AM_OK;
    (void)exit_status;
    rc = check_options(args);
    AM_AGREE(comm);
    AM_TRY(am_job_recipe_all(args, o->on.task, &j.recipe));
    AM_TRY(am_networks_shape_all(comm, &j.recipe, "align", o->features, &j.net, &j.trunk));
    rc = describe(&j);
    AM_KEEP(name_inputs(&j));
    AM_AGREE(comm);
    AM_TRY(load_all(comm, &j));
    AM_TRY(align_all(comm, &j));
    rc = report(&j);
    AM_AGREE(comm);
cleanup:
    job_free(&j);
    return rc;
}

const am_command am_command_align = {
    .name = "align",
    .synopsis =
        "RECIPE MODEL --to BASE -o OUT [--heads HEADS --heads-output OUT [--heads-to HEADS]] "
        "[--match weights|activations|both] [--samples N] [--memory SIZE] [--set KEY=VALUE]...",
    .summary = "Put a network's units into the order of another one's, before a merge.",
    .help = "RECIPE is one of train or iterate; BASE and MODEL are trunks of its shape that were "
            "trained apart. OUT computes what MODEL does; its weights are those of MODEL, in the "
            "order in which they are most like those of BASE (git re-basin). With --match "
            "activations it is what the units do on the samples of the recipe that is to be "
            "alike; with both, the sum of the two. "
            "Without --heads the last value keeps its order, so that the heads still fit.",
    .min_positional = 2,
    .max_positional = 2,
    .options = options,
    .options_bytes = sizeof(align_options),
    .takes_set = true,
    .run_all = run_all,
};
