/* The job of `allmerge stats`: see stats.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/stats/stats.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "io/commit/digest.h"
#include "io/commit/identity.h"
#include "io/commit/provenance.h"
#include "io/file.h"
#include "jobs/stats/make.h"
#include "jobs/stats/origin.h"
#include "jobs/training/fit.h"
#include "jobs/training/job.h"
#include "jobs/training/suite/weights.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"
#include "mpi/clock.h"
#include "mpi/log.h"
#include "mpi/runtime.h"
#include "mpi/stop.h"

static const char *const fishers[] = {"empirical", "exact", "sampled", "none"};
static const char *const splits[] = {"train", "validation", "test"};

const am_stats_request am_stats_defaults = {
    .with_grams = true, .batch = 512, .micro_batches = 8, .save_every = AM_PACE_AUTO};

typedef struct job {
    const am_stats_request *request;
    am_train_recipe recipe;
    am_suite suite;
    void *trunk;       /* owned */
    const char *heads; /* path; NULL: none is needed */
    char *text;        /* owned: the command with its options that change the output */
    char *all;         /* owned: that and the recipe */
    char **inputs;     /* owned */
    char *identity;    /* owned, rank 0 */
    am_statistics statistics;
    am_task *task;   /* [tasks] owned */
    int64_t samples; /* of all tasks */
    bool was_finished;
} job;

/* ---- what is asked for ---- */

void am_stats_adapt(const am_stats_request *request, am_train_recipe *recipe)
{
    am_net *net = &recipe->model.net;
    recipe->stats = (am_statistics_options){
        .what = {.fisher = (am_stats_fisher)request->fisher,
                 .with_grams = request->with_grams,
                 .seed = (uint64_t)recipe->seed},
        .batch = request->batch,
        .micro_batches = request->micro_batches,
    };
    recipe->stats_split = (am_split)request->split;
    for (int s = 0; s < AM_SPLITS; s++) {
        int64_t *limit = &recipe->limit[s];
        if (s != request->split) {
            *limit = 1;
        } else if (request->samples > 0 && (*limit == 0 || request->samples < *limit)) {
            *limit = request->samples;
        }
    }
    for (int i = 0; i < net->n_freeze; i++) {
        free(net->freeze[i]);
    }
    net->n_freeze = 0;
    net->smoothing = 0;
    free(recipe->base_task); /* nothing is pretrained */
    recipe->base_task = NULL;
}

int am_stats_check_recipe(const am_train_recipe *recipe)
{
    return recipe->model.linearised
               ? am_fail(AM_E_RECIPE, "stats does not know the base at which the model is "
                                      "linearised: set model.linearised to no")
               : AM_OK;
}

static int check(job *j)
{
    const am_stats_request *r = j->request;
    j->heads = r->heads != NULL ? r->heads : j->recipe.heads_checkpoint;
    const int rc = am_stats_check_recipe(&j->recipe);
    if (rc != AM_OK) {
        return rc;
    }
    if (r->fisher == AM_FISHER_NONE && !r->with_grams) {
        return am_fail(AM_E_USAGE, "--fisher none and --no-grams leave nothing to do");
    }
    if (r->fisher != AM_FISHER_NONE && j->heads == NULL) {
        return am_fail(AM_E_USAGE, "no heads for the likelihood: give --heads RUN/heads.h5, or "
                                   "heads: checkpoint: in the recipe, or --fisher none");
    }
    if (r->micro_batches > r->batch) {
        return am_fail(AM_E_USAGE,
                       "--micro-batches %" PRId64
                       " are more than the samples of a --batch, %" PRId64,
                       r->micro_batches, r->batch);
    }
    return AM_OK;
}

/* The file OUT.halt asks the job to stop. */
static int watch_halt(const char *output)
{
    char *clean = am_clean_path(output);
    char *path = clean != NULL ? am_text("%s.halt", clean) : NULL;
    const int rc = path != NULL ? am_stop_on_file(path) : AM_E_NOMEM;
    free(clean);
    free(path);
    return rc;
}

static int list_inputs(job *j)
{
    const am_train_recipe *recipe = &j->recipe;
    const char *models[] = {j->request->model,
                            j->request->fisher != AM_FISHER_NONE ? j->heads : NULL};
    int rc = AM_OK, n = 0;
    j->inputs = am_new(recipe->n_tasks + 3, sizeof *j->inputs, "paths");
    if (j->inputs == NULL) {
        return AM_E_NOMEM;
    }
    for (int i = 0; i < 2 && rc == AM_OK; i++) {
        if (models[i] != NULL) {
            j->inputs[n] = am_text("%s", models[i]);
            rc = j->inputs[n++] == NULL ? AM_E_NOMEM : AM_OK;
        }
    }
    for (int i = 0; i < recipe->n_tasks && rc == AM_OK; i++) {
        j->inputs[n] = am_text("%s/%s.h5", recipe->folder, recipe->task[i]);
        rc = j->inputs[n++] == NULL ? AM_E_NOMEM : AM_OK;
    }
    return rc;
}

/* What the job is: for the manifest, and for going on. */
static int identify_all(job *j)
{
    const am_stats_request *r = j->request;
    j->text = am_text("stats --fisher %s %s --split %s --samples %" PRId64 " --batch %" PRId64
                      " --micro-batches %" PRId64,
                      fishers[r->fisher], r->with_grams ? "--grams" : "--no-grams",
                      splits[r->split], r->samples, r->batch, r->micro_batches);
    j->all = j->text != NULL ? am_text("%s\n%s", j->text, j->recipe.text) : NULL;
    int rc = j->all == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(list_inputs(j));
    if (am_world_rank() == 0) {
        AM_KEEP(am_identity_make(j->text, j->recipe.text, true, (const char *const *)j->inputs,
                                 &j->identity));
    }
    return am_agree_all(am_world(), rc);
}

/* ---- model and data ---- */

static int64_t task_samples(const job *j, int i)
{
    return am_dataset_samples(j->suite.data[i], j->recipe.stats_split).n;
}

static int open_all(job *j)
{
    am_train_recipe *recipe = &j->recipe;
    int rc = AM_OK;
    AM_TRY(am_train_fit_all(am_world(), recipe, AM_JOB_STATS, am_world_size(), j->request->memory,
                            NULL, NULL));
    AM_TRY(am_suite_open_all(am_world(), recipe->folder, (const char *const *)recipe->task,
                             recipe->n_tasks, recipe->limit, recipe->room, &recipe->model.net,
                             recipe->dtype, &j->suite));
    if (j->request->fisher != AM_FISHER_NONE) {
        AM_TRY(am_suite_load_heads_all(&j->suite, j->heads));
    }
    j->trunk = am_suite_trunk_new(&j->suite);
    rc = j->trunk == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(am_world());
    AM_TRY(am_suite_load_trunk_all(&j->suite, j->request->model, j->trunk));
    for (int i = 0; i < j->suite.n; i++) {
        const int64_t n = task_samples(j, i);
        j->samples += n;
        if (n == 0) { /* the same on all ranks */
            rc = am_fail(AM_E_DATA, "task %s has no samples in its split %s: take another --split",
                         am_suite_task(&j->suite, i), splits[recipe->stats_split]);
        }
    }
cleanup:
    return rc;
}

/* ---- what the output says of itself ---- */

/* Tasks with their samples, and the digest of their files as in manifests. */
static int describe_data_all(const job *j, am_json *json)
{
    am_input_facts *facts = am_new(j->suite.n, sizeof *facts, "data sets");
    char *const *path = j->inputs + (j->request->fisher != AM_FISHER_NONE ? 2 : 1);
    int rc = facts == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; i < j->suite.n && am_world_rank() == 0; i++) {
        AM_KEEP(am_input_facts_read(path[i], &facts[i]));
    }
    AM_AGREE(am_world());
    AM_TRY(am_bcast_all(am_world(), 0, facts, j->suite.n * (int64_t)sizeof *facts));
    am_json_array(json, NULL);
    for (int i = 0; i < j->suite.n; i++) {
        am_json_object(json, NULL);
        am_json_string(json, "task", am_suite_task(&j->suite, i));
        am_json_int(json, "samples", task_samples(j, i));
        am_json_int(json, "bytes", facts[i].bytes);
        am_json_string(json, "sample_xxh3", am_hex_of(facts[i].sample).text);
        am_json_end_object(json);
    }
    am_json_end_array(json);
    rc = am_json_finish(json);
    AM_AGREE(am_world());
cleanup:
    free(facts);
    return rc;
}

/* Rows that each mean and Gram matrix is over. */
static void describe_rows(const job *j, am_json *json)
{
    const am_stats_layout *l = &j->statistics.layout;
    static const char mean[] = "mean.";
    am_json_object(json, NULL);
    for (int64_t i = 0; i < l->tensors.n; i++) {
        const char *name = l->tensors.t[i].name;
        if (j->request->with_grams && strncmp(name, mean, strlen(mean)) == 0) {
            am_json_int(json, name + strlen(mean), l->rows[i] * j->samples);
        }
    }
    am_json_end_object(json);
}

/* The fingerprint of the model, on every rank. */
static int describe_model_all(const job *j, am_hex *out)
{
    am_ckpt *ckpt = NULL;
    am_source source = {0};
    int rc = AM_OK;
    AM_TRY(am_ckpt_open_all(am_world(), j->request->model, &ckpt));
    if (am_world_rank() == 0) {
        rc = am_ckpt_source(ckpt, 0, &source);
        AM_KEEP(am_stats_origin(&source, &j->statistics.layout.tensors, j->recipe.dtype, out));
    }
    AM_AGREE(am_world());
    AM_TRY(am_bcast_all(am_world(), 0, out, sizeof *out));
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

static int describe_all(const job *j, am_meta *meta)
{
    am_json data = {0}, rows = {0};
    am_hex model = {{0}};
    int rc = AM_OK;
    AM_TRY(describe_data_all(j, &data));
    AM_TRY(describe_model_all(j, &model));
    describe_rows(j, &rows);
    rc = am_json_finish(&rows);
    AM_KEEP(am_meta_set(meta, "stats.command", j->text));
    AM_KEEP(am_meta_set(meta, "stats.fisher", fishers[j->request->fisher]));
    AM_KEEP(am_snapshot_set(meta, "stats.samples", j->samples));
    AM_KEEP(am_meta_set(meta, "stats.data", data.text));
    AM_KEEP(am_meta_set(meta, "stats.rows", rows.text));
    AM_KEEP(am_meta_set(meta, AM_STATS_ORIGIN_DTYPE, am_dtype_name(j->recipe.dtype)));
    AM_KEEP(am_meta_set(meta, AM_STATS_ORIGIN, model.text));
    AM_AGREE(am_world());
cleanup:
    am_json_free(&data);
    am_json_free(&rows);
    return rc;
}

/* ---- work ---- */

static int list_tasks(job *j)
{
    const am_suite *suite = &j->suite;
    j->task = am_new(suite->n, sizeof *j->task, "tasks");
    for (int i = 0; i < suite->n && j->task != NULL; i++) {
        j->task[i] = (am_task){.name = am_suite_task(suite, i),
                               .train = am_dataset_samples(suite->data[i], j->recipe.stats_split),
                               .head = suite->head_params[i],
                               .classes = am_dataset_classes(suite->data[i])};
    }
    return j->task != NULL ? AM_OK : AM_E_NOMEM;
}

static int make_all(job *j, am_ckpt_writer *writer)
{
    const am_stats_work work = {.statistics = &j->statistics,
                                .trunk = j->trunk,
                                .task = j->task,
                                .n = j->suite.n,
                                .output = j->request->output,
                                .identity = j->identity,
                                .other = j->request->fresh ? AM_SUMS_FRESH : AM_SUMS_REFUSE,
                                .save_every = j->request->save_every,
                                .progress = "statistics"};
    return am_stats_make_all(&work, &writer);
}

static int write_all(job *j, const am_meta *meta)
{
    am_ckpt_writer *writer = NULL;
    const am_ckpt_options options = {.overwrite = j->request->overwrite,
                                     .accept_finished = true,
                                     .meta = meta,
                                     .recipe = j->all,
                                     .inputs = (const char *const *)j->inputs,
                                     .save_every = AM_PACE_AUTO};
    int rc = AM_OK;
    AM_TRY(am_ckpt_create_all(am_world(), j->request->output, &j->statistics.layout.tensors,
                              &options, &writer));
    j->was_finished = writer == NULL; /* the same on every rank */
    rc = writer != NULL ? make_all(j, writer)
                        : am_sums_remove_all(am_world(), j->request->output); /* left by a kill */
cleanup:
    return rc;
}

static int report_all(const job *j, double seconds)
{
    am_process process = {0};
    am_json json = {0};
    int rc = AM_OK;
    AM_TRY(am_memory_process_all(am_world(), &process));
    if (j->was_finished) {
        am_info("%s is there, made by this recipe from these inputs: nothing to do (--overwrite "
                "makes it again)",
                j->request->output);
    }
    am_json_object(&json, NULL);
    am_json_string(&json, "job", "stats");
    am_json_string(&json, "output", j->request->output);
    am_json_int(&json, "tasks", j->suite.n);
    am_json_int(&json, "samples", j->samples);
    am_json_string(&json, "split", splits[j->request->split]);
    am_json_string(&json, "fisher", fishers[j->request->fisher]);
    am_json_int(&json, "tensors", j->statistics.layout.tensors.n);
    am_json_int(&json, "values", j->statistics.layout.n);
    am_json_bool(&json, "was_finished", j->was_finished);
    am_json_int(&json, "peak_bytes", process.peak);
    am_json_real(&json, "seconds", seconds);
    am_json_end_object(&json);
    rc = am_json_finish(&json);
    AM_AGREE(am_world());
    am_result(&json);
cleanup:
    am_json_free(&json);
    return rc;
}

int am_stats_run_all(const am_args *args, const am_stats_request *request)
{
    const double start = am_seconds();
    job j = {.request = request, .suite = {.comm = MPI_COMM_NULL, .group = MPI_COMM_NULL}};
    am_meta meta = {0};
    int rc = watch_halt(request->output);
    am_memory_keep_no_holes();
    AM_AGREE(am_world());
    AM_TRY(am_job_recipe_all(args, request->task, &j.recipe));
    AM_TRY(check(&j)); /* the same on all ranks */
    AM_TRY(identify_all(&j));
    am_stats_adapt(request, &j.recipe);
    AM_TRY(open_all(&j));
    AM_TRY(am_statistics_open_all(am_world(), j.suite.ops, &j.suite.net, &j.recipe.stats,
                                  &j.statistics));
    rc = list_tasks(&j);
    AM_AGREE(am_world());
    AM_TRY(describe_all(&j, &meta));
    AM_TRY(write_all(&j, &meta));
    AM_TRY(report_all(&j, am_seconds() - start));
cleanup:
    am_meta_free(&meta);
    am_statistics_free(&j.statistics);
    am_suite_close_all(&j.suite);
    am_train_recipe_inputs_free(j.inputs);
    am_train_recipe_free(&j.recipe);
    free(j.identity);
    free(j.task);
    free(j.text);
    free(j.all);
    free(j.trunk);
    return rc;
}
