/* Iterative task arithmetic: see iterate.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/iterate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/training/report.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/progress.h"
#include "mpi/runtime.h"
#include "io/versions.h"
#include "jobs/training/adapt.h"
#include "solver/analysis/gram.h"
#include "jobs/training/iterate_parts.h"
#include "solver/linalg/blas_info.h"

static size_t trunk_bytes(const am_iterate *it)
{
    return (size_t)(it->suite.trunk.n * am_suite_real_bytes(&it->suite));
}

void am_iterate_copy(const am_iterate *it, void *to, const void *from)
{
    memcpy(to, from, trunk_bytes(it));
}

static bool is_mine(const am_iterate *it, int task)
{
    return it->suite.owner[task] == it->suite.my_group;
}

/* Every own task starts from `from`. */
void am_iterate_start_tasks(am_iterate *it, const void *from)
{
    for (int i = 0; i < it->suite.n; i++) {
        if (is_mine(it, i)) {
            am_iterate_copy(it, it->trunk[i], from);
        }
    }
}

double am_choice_score(const am_iterate *it, const am_table_choice *how)
{
    return it->table.by_loss ? -how->validation_loss : how->validation;
}

const char *am_choice_text(const am_iterate *it, const am_table_choice *how, char *text)
{
    if (it->table.by_loss) {
        snprintf(text, AM_CHOICE_TEXT, "%.4f bits", am_table_bits(how->validation_loss));
    } else {
        snprintf(text, AM_CHOICE_TEXT, "%.4f", how->validation);
    }
    return text;
}

/* Keep `trunk` if it beats the choice on validation data; the earlier one wins ties. */
void am_choice_offer(const am_iterate *it, am_choice *best, const void *trunk, am_table_choice how)
{
    if (!best->is_set || am_choice_score(it, &how) > am_choice_score(it, &best->how)) {
        am_iterate_copy(it, best->trunk, trunk);
        best->how = how;
        best->is_set = true;
    }
}

int am_choice_new(const am_iterate *it, am_choice *out)
{
    *out = (am_choice){.trunk = am_suite_trunk_new(&it->suite)};
    return out->trunk == NULL ? AM_E_NOMEM : AM_OK;
}

/* ---- set up ---- */

static int allocate(am_iterate *it)
{
    am_suite *suite = &it->suite;
    it->base = am_suite_trunk_new(suite);
    it->merged = am_suite_trunk_new(suite);
    it->final = am_suite_trunk_new(suite);
    it->trunk = am_new(suite->n, sizeof *it->trunk, "trunks");
    it->best = am_new(suite->n, sizeof *it->best, "trunks");
    if (!it->base || !it->merged || !it->final || !it->trunk || !it->best) {
        return AM_E_NOMEM;
    }
    for (int i = 0; i < suite->n; i++) {
        if (is_mine(it, i)) {
            it->trunk[i] = am_suite_trunk_new(suite);
            it->best[i] = am_suite_trunk_new(suite);
            if (!it->trunk[i] || !it->best[i]) {
                return AM_E_NOMEM;
            }
        }
    }
    return AM_OK;
}

void am_iterate_close_all(am_iterate *it)
{
    for (int i = 0; i < it->suite.n; i++) {
        if (it->trunk) {
            free(it->trunk[i]);
        }
        if (it->best) {
            free(it->best[i]);
        }
    }
    free(it->trunk);
    free(it->best);
    free(it->base);
    free(it->merged);
    free(it->final);
    am_model_pool_free(&it->pool);
    am_table_free(&it->table);
    am_saver_free(&it->saver);
    am_suite_close_all(&it->suite);
}

int am_iterate_save_all(const am_iterate *it, const char *name, const void *trunk)
{
    char path[AM_RUN_PATH];
    int rc = am_run_folder_file(it->folder, path, "%s", name);
    am_ckpt_options options = {.overwrite = true, .recipe = it->recipe->text};
    AM_AGREE(it->suite.comm);
    AM_TRY(am_suite_save_trunk_all(&it->suite, path, trunk, &options));
cleanup:
    return rc;
}

/* A step that an earlier run of the same recipe finished: read its model. */
int am_iterate_read_all(const am_iterate *it, const char *name, void *trunk, bool *is_done)
{
    char path[AM_RUN_PATH];
    int rc = AM_OK;
    AM_TRY(am_run_folder_has_sound_all(it->suite.comm, it->folder, name, is_done));
    if (*is_done) {
        AM_TRY(am_run_folder_file(it->folder, path, "%s", name)); /* the same on all ranks */
        AM_TRY(am_suite_load_trunk_all(&it->suite, path, trunk));
    }
cleanup:
    return rc;
}

/* ---- base and heads ---- */

/* Pretrain the trunk with a head of its own, which is then dropped. */
static int pretrain_all(am_iterate *it)
{
    const am_train_recipe *recipe = it->recipe;
    const int64_t no_limit[AM_SPLITS] = {0};
    am_suite pretraining = {.comm = MPI_COMM_NULL, .group = MPI_COMM_NULL};
    const char *task[] = {recipe->base_task};
    int rc = AM_OK;
    AM_TRY(am_suite_open_all(it->suite.comm, recipe->folder, task, 1, no_limit,
                             recipe->room != NULL ? &recipe->room[recipe->n_tasks] : NULL,
                             &recipe->model.net, recipe->dtype, &pretraining));
    pretraining.divergence = recipe->divergence;
    pretraining.saver = &it->saver;
    am_saver_step(&it->saver, false, "pretraining");
    if (pretraining.net.features != it->suite.net.features) {
        rc = am_fail(AM_E_DATA, "the pretraining set %s has %lld features, the tasks have %lld",
                     task[0], (long long)pretraining.net.features,
                     (long long)it->suite.net.features);
        goto cleanup; /* equal on all ranks */
    }
    am_train_options options =
        am_train_section_options(&recipe->base, recipe->seed, "pretrain", 0, 0, 0);
    options.train_head = true;
    AM_TRY(am_suite_joint_all(&pretraining, it->base, &options));
cleanup:
    am_suite_close_all(&pretraining);
    return rc;
}

static int make_base_all(am_iterate *it)
{
    const am_train_recipe *recipe = it->recipe;
    am_suite *suite = &it->suite;
    bool is_done = false;
    int rc = AM_OK;
    AM_TRY(am_iterate_read_all(it, "base.h5", it->base, &is_done));
    if (is_done) {
        goto cleanup;
    }
    rc = suite->ops->init(&suite->trunk, (uint64_t)recipe->seed, "init", it->base);
    AM_AGREE(suite->comm);
    if (recipe->base_checkpoint != NULL) {
        AM_TRY(am_suite_load_trunk_all(suite, recipe->base_checkpoint, it->base));
        am_info("base: read from %s", recipe->base_checkpoint);
    } else if (recipe->base_task != NULL) {
        am_info("base: pretraining on %s, epochs: %lld", recipe->base_task,
                (long long)recipe->base.epochs);
        AM_TRY(pretrain_all(it));
    } else {
        am_info("base: random, seed %lld", (long long)recipe->seed);
    }
    AM_TRY(am_iterate_save_all(it, "base.h5", it->base));
    AM_TRY(am_saver_done_all(&it->saver, suite->comm));
cleanup:
    return rc;
}

int am_iterate_stopped_all(am_iterate *it, int code)
{
    int rc = code;
    if (code == AM_E_STOPPED) { /* the same on all ranks */
        const int saved = am_saver_stop_all(&it->saver, it->suite.group);
        rc = am_agree_all(it->suite.comm, saved != AM_OK ? saved : code);
    }
    return rc;
}

static int make_heads_all(am_iterate *it)
{
    const am_train_recipe *recipe = it->recipe;
    am_suite *suite = &it->suite;
    am_ckpt_options options = {.overwrite = true, .recipe = recipe->text};
    char path[AM_RUN_PATH];
    bool is_done = false;
    int rc = am_run_folder_file(it->folder, path, "heads.h5");
    AM_AGREE(suite->comm);
    AM_TRY(am_run_folder_has_sound_all(suite->comm, it->folder, "heads.h5", &is_done));
    if (is_done) {
        AM_TRY(am_suite_load_heads_all(suite, path));
        goto cleanup;
    }
    if (recipe->heads_checkpoint != NULL) {
        am_info("heads: read from %s", recipe->heads_checkpoint);
        AM_TRY(am_suite_load_heads_all(suite, recipe->heads_checkpoint));
    } else {
        am_info("heads: one linear probe a task on the frozen base, epochs: %lld",
                (long long)recipe->heads.epochs);
        am_train_options probe =
            am_train_section_options(&recipe->heads, recipe->seed, "probe", 0, 0, 0);
        am_saver_step(&it->saver, true, "heads");
        AM_TRY(am_suite_probe_all(suite, it->base, &probe));
    }
    AM_TRY(am_suite_save_heads_all(suite, path, &options));
    AM_TRY(am_saver_done_all(&it->saver, suite->comm));
cleanup:
    return am_iterate_stopped_all(it, rc);
}

/* ---- merging ---- */

int am_iterate_merge_all(am_iterate *it, double alpha, void *out)
{
    const am_train_recipe *recipe = it->recipe;
    double param[AM_METHOD_MAX_PARAMS];
    memcpy(param, recipe->param, sizeof param);
    if (recipe->lambda >= 0) {
        param[recipe->lambda] = alpha;
    }
    return am_model_pool_merge_all(it->pool, recipe->method, param, recipe->param, out);
}

/* Write norms and cosines of the task vectors in the pool as one event. */
int am_iterate_vectors_all(am_iterate *it, const char *phase, double alpha, int64_t step)
{
    int n = it->suite.n, rc = AM_OK;
    am_json json = {0};
    double *gram = am_new((int64_t)n * n, sizeof *gram, "the Gram matrix");
    double *cosine = am_new((int64_t)n * n, sizeof *cosine, "the Gram matrix");
    double *norm = am_new(n, sizeof *norm, "the Gram matrix");
    rc = !gram || !cosine || !norm ? AM_E_NOMEM : AM_OK;
    AM_AGREE(it->suite.comm);
    AM_TRY(am_model_pool_gram_all(it->pool, NULL, gram));
    am_gram_cosines(gram, n, norm, cosine);
    am_json_string(&json, "phase", phase);
    am_json_real(&json, "alpha", alpha);
    am_json_int(&json, "step", step);
    am_json_array(&json, "norms");
    for (int i = 0; i < n; i++) {
        am_json_real(&json, NULL, norm[i]);
    }
    am_json_end_array(&json);
    am_json_array(&json, "cosines");
    for (int i = 0; i < n; i++) {
        am_json_array(&json, NULL);
        for (int j = 0; j < n; j++) {
            am_json_real(&json, NULL, cosine[i * n + j]);
        }
        am_json_end_array(&json);
    }
    am_json_end_array(&json);
    am_event("task_vectors", &json);
cleanup:
    am_json_free(&json);
    free(gram);
    free(cosine);
    free(norm);
    return rc;
}

static void report_scores(const am_suite *suite, const char *phase, am_table_choice how,
                          const am_scores *scores)
{
    am_json json = {0};
    am_json_string(&json, "phase", phase);
    am_json_real(&json, "alpha", how.alpha);
    am_json_int(&json, "epochs", how.epochs);
    am_json_int(&json, "round", how.round);
    am_json_real(&json, "validation_accuracy", scores->accuracy);
    am_json_real(&json, "validation_loss_nats", scores->loss);
    am_report_scores(suite, scores, &json);
    am_event("validation", &json);
    am_json_free(&json);
}

/* Validation accuracy and loss of one trunk on all tasks, into `how`. */
int am_iterate_validate_all(const am_iterate *it, const char *phase, const void *trunk,
                            am_table_choice *how)
{
    am_scores scores = {0};
    int rc = am_suite_eval_all(&it->suite, trunk, AM_VALIDATION, &scores);
    if (rc == AM_OK) {
        how->validation = scores.accuracy;
        how->validation_loss = scores.loss;
        report_scores(&it->suite, phase, *how, &scores);
        am_scores_free(&scores);
    }
    return rc;
}

/* Test accuracy of a chosen model: one more row of the table. */
int am_iterate_test_all(am_iterate *it, const char *key, const char *name, const void *trunk,
                        am_table_choice how)
{
    am_scores scores = {0};
    int rc = am_suite_eval_all(&it->suite, trunk, AM_TEST, &scores);
    AM_KEEP(am_table_add(&it->table, key, name, how, &scores));
    am_scores_free(&scores);
    return rc;
}

/* ---- one shot, and individual models ---- */

/* Keep the snapshot of each own task that is the best on validation data so far; best[tasks]. */
static int keep_individuals_all(am_iterate *it, am_table_choice *best)
{
    am_scores scores = {0};
    int rc = am_suite_eval_own_all(&it->suite, it->trunk, AM_VALIDATION, &scores);
    for (int i = 0; i < it->suite.n && rc == AM_OK; i++) {
        const am_eval_result *task = &scores.task[i];
        const am_table_choice how = {.validation = (double)task->correct / (double)task->n,
                                     .validation_loss = task->loss};
        if (best[i].validation < 0 || am_choice_score(it, &how) > am_choice_score(it, &best[i])) {
            best[i] = how;
            if (is_mine(it, i)) {
                am_iterate_copy(it, it->best[i], it->trunk[i]);
            }
        }
    }
    am_scores_free(&scores);
    return rc;
}

/* The best merge of what the pool holds, over all alphas. */
static int best_merge_all(am_iterate *it, int64_t epochs, am_choice *best)
{
    char text[AM_CHOICE_TEXT];
    int rc = AM_OK;
    for (int a = 0; a < it->recipe->n_alphas; a++) {
        am_table_choice how = {.alpha = it->recipe->alpha[a], .epochs = epochs, .round = -1};
        AM_TRY(am_iterate_merge_all(it, how.alpha, it->merged));
        AM_TRY(am_iterate_validate_all(it, "one_shot", it->merged, &how));
        am_choice_offer(it, best, it->merged, how);
    }
    am_info("one-shot merge of %lld-epoch models: validation %s at alpha %g", (long long)epochs,
            am_choice_text(it, &best->how, text), best->how.alpha);
cleanup:
    return rc;
}

static int test_individuals_all(am_iterate *it, const am_table_choice *best)
{
    am_scores scores = {0};
    am_table_choice how = {.alpha = NAN, .epochs = -1, .round = -1};
    int rc = am_suite_eval_own_all(&it->suite, it->best, AM_TEST, &scores);
    for (int i = 0; i < it->suite.n; i++) {
        how.validation += best[i].validation / it->suite.n;
        how.validation_loss += best[i].validation_loss / it->suite.n;
    }
    AM_KEEP(am_table_add(&it->table, "individual", "individual models", how, &scores));
    am_scores_free(&scores);
    return rc;
}

/* Own task i, from `done` to `epochs` epochs, saved as tuned/TASK-epochs-N.h5. Collective in the
 * group. */
static int tune_task_all(am_iterate *it, int i, int64_t done, int64_t epochs)
{
    am_suite *suite = &it->suite;
    const am_train_recipe *recipe = it->recipe;
    am_ckpt_options options = {.overwrite = true, .recipe = recipe->text};
    char name[AM_RUN_PATH], path[AM_RUN_PATH];
    bool is_done = false;
    int rc = AM_OK;
    snprintf(name, sizeof name, "tuned/%s-epochs-%03lld.h5", am_suite_task(suite, i),
             (long long)epochs);
    AM_TRY(am_run_folder_file(it->folder, path, "%s", name)); /* the same in the group */
    AM_TRY(am_run_folder_has_sound_all(suite->group, it->folder, name, &is_done));
    if (is_done) {
        AM_TRY(am_ckpt_load_all(suite->group, path, &suite->trunk.tensors, suite->trunk.offset,
                                it->trunk[i]));
        goto cleanup;
    }
    am_train_options train =
        am_train_section_options(&recipe->finetune, recipe->seed, "one_shot", done, done,
                                 recipe->one_shot_epochs[recipe->n_epochs - 1]);
    train.epochs = epochs - done;
    AM_TRY(am_suite_finetune_one_all(suite, i, it->trunk[i], &train));
    AM_TRY(am_ckpt_save_all(suite->group, path, &suite->trunk.tensors, suite->trunk.offset,
                            it->trunk[i], &options));
cleanup:
    return rc;
}

static int tune_all(am_iterate *it, int64_t done, int64_t epochs)
{
    int rc = AM_OK;
    am_saver_step(&it->saver, false, "one shot, %lld epochs", (long long)epochs);
    for (int i = 0; i < it->suite.n; i++) {
        if (is_mine(it, i)) {
            AM_KEEP(tune_task_all(it, i, done, epochs));
        }
    }
    const am_train_options train =
        am_train_section_options(&it->recipe->finetune, it->recipe->seed, "one_shot", done, 0, 0);
    const int told = am_suite_report_all(&it->suite, &train);
    AM_KEEP(told);
    AM_AGREE(it->suite.comm);
    AM_TRY(am_saver_done_all(&it->saver, it->suite.comm));
cleanup:
    return rc;
}

/* Finetune every task from the base, merging at each listed number of epochs. */
static int one_shot_all(am_iterate *it)
{
    const am_train_recipe *recipe = it->recipe;
    am_choice best = {0}, overall = {0};
    int64_t done = 0;
    am_table_choice individual[AM_RECIPE_MAX_TASKS] = {0};
    int rc = am_choice_new(it, &best);
    AM_KEEP(am_choice_new(it, &overall));
    AM_AGREE(it->suite.comm);
    for (int i = 0; i < it->suite.n; i++) {
        individual[i].validation = -1.0; /* none yet */
    }
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, "tuned"));
    am_iterate_start_tasks(it, it->base);
    for (int k = 0; k < recipe->n_epochs; k++) {
        AM_TRY(tune_all(it, done, recipe->one_shot_epochs[k]));
        done = recipe->one_shot_epochs[k];
        AM_TRY(keep_individuals_all(it, individual));
        AM_TRY(am_model_pool_fill_all(it->pool, it->base, it->trunk));
        AM_TRY(am_iterate_vectors_all(it, "one_shot", NAN, done));
        best.is_set = false;
        AM_TRY(best_merge_all(it, done, &best));
        am_choice_offer(it, &overall, best.trunk, best.how);
        char key[AM_TABLE_NAME], name[AM_TABLE_NAME];
        snprintf(key, sizeof key, "one_shot_%lld", (long long)done);
        snprintf(name, sizeof name, "one-shot merge, %lld epoch%s", (long long)done,
                 done == 1 ? "" : "s");
        AM_TRY(am_iterate_test_all(it, key, name, best.trunk, best.how));
    }
    if (overall.is_set) {
        AM_TRY(am_iterate_save_all(it, "one-shot.h5", overall.trunk));
        AM_TRY(am_iterate_test_all(it, "one_shot", "one-shot merge, best", overall.trunk,
                                   overall.how));
        AM_TRY(test_individuals_all(it, individual));
    }
cleanup:
    free(best.trunk);
    free(overall.trunk);
    return rc;
}

/* ---- joint training ---- */

/* As many as the rounds train, unless the recipe says otherwise. */
static int64_t joint_epochs(const am_train_recipe *recipe)
{
    return recipe->joint.epochs > 0 ? recipe->joint.epochs
                                    : recipe->rounds * recipe->finetune.epochs;
}

/* Epoch `epoch` from `current`: read if it is there, else done and saved. */
static int step_joint_all(am_iterate *it, int64_t epoch, void *current)
{
    char name[64];
    bool is_done = false;
    int rc = AM_OK;
    snprintf(name, sizeof name, "joint/epoch-%03lld.h5", (long long)epoch);
    AM_TRY(am_iterate_read_all(it, name, current, &is_done));
    if (!is_done) {
        am_train_options options =
            am_train_section_options(&it->recipe->joint, it->recipe->seed, "joint", epoch,
                                     epoch - 1, joint_epochs(it->recipe));
        options.epochs = 1;
        am_saver_step(&it->saver, false, "joint training, epoch %lld", (long long)epoch);
        AM_TRY(am_suite_joint_all(&it->suite, current, &options));
        AM_TRY(am_iterate_save_all(it, name, current));
        AM_TRY(am_saver_done_all(&it->saver, it->suite.comm));
    }
cleanup:
    return rc;
}

static int joint_phase_all(am_iterate *it)
{
    char text[AM_CHOICE_TEXT];
    const am_train_recipe *recipe = it->recipe;
    am_choice best = {0};
    void *current = am_suite_trunk_new(&it->suite);
    int rc = current == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(am_choice_new(it, &best));
    AM_AGREE(it->suite.comm);
    const int64_t epochs = joint_epochs(recipe);
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, "joint"));
    am_iterate_copy(it, current, it->base);
    for (int64_t epoch = 1; epoch <= epochs; epoch++) {
        am_table_choice how = {.alpha = NAN, .epochs = epoch, .round = -1};
        AM_TRY(step_joint_all(it, epoch, current));
        AM_TRY(am_iterate_validate_all(it, "joint", current, &how));
        am_choice_offer(it, &best, current, how);
    }
    am_info("joint training: validation %s after %lld epochs", am_choice_text(it, &best.how, text),
            (long long)best.how.epochs);
    AM_TRY(am_iterate_test_all(it, "joint", "joint training", best.trunk, best.how));
    AM_TRY(am_iterate_save_all(it, "joint.h5", best.trunk));
cleanup:
    free(current);
    free(best.trunk);
    return rc;
}

/* ---- the job ---- */

static int test_base_all(am_iterate *it)
{
    am_table_choice how = {.alpha = NAN, .epochs = 0, .round = -1};
    int rc = am_iterate_validate_all(it, "base", it->base, &how);
    AM_KEEP(am_iterate_test_all(it, "base", "base", it->base, how));
    return rc;
}

int am_iterate_open_all(MPI_Comm comm, const am_train_recipe *recipe, am_iterate *it)
{
    int rc = AM_OK;
    *it = (am_iterate){.recipe = recipe};
    it->suite = (am_suite){.comm = MPI_COMM_NULL, .group = MPI_COMM_NULL};
    AM_TRY(am_suite_open_all(comm, recipe->folder, (const char *const *)recipe->task,
                             recipe->n_tasks, recipe->limit, recipe->room, &recipe->model.net,
                             recipe->dtype, &it->suite));
    it->suite.divergence = recipe->divergence;
    it->table.suite = &it->suite;
    it->table.by_loss = am_train_recipe_by_loss(recipe, am_suite_is_text(&it->suite));
    rc = allocate(it);
    AM_KEEP(am_adapt_open(&it->suite, &recipe->model.lora));
    AM_AGREE(comm);
    AM_TRY(am_model_pool_create_all(&it->suite, &it->pool));
    am_info("%d task%s in %d group%s, trunk of %lld parameters", it->suite.n,
            it->suite.n == 1 ? "" : "s", it->suite.n_groups, it->suite.n_groups == 1 ? "" : "s",
            (long long)it->suite.trunk.n);
    return AM_OK;
cleanup:
    am_iterate_close_all(it);
    return rc;
}

/* What the run log says of the machine; files hold nothing of it. */
static void report_start(const am_iterate *it)
{
    am_json json = {0};
    am_json_string(&json, "allmerge", AM_VERSION);
    am_json_string(&json, "mpi", am_mpi_version());
    am_json_string(&json, "hdf5", am_hdf5_version());
    am_json_string(&json, "blas", am_blas_version());
    am_json_int(&json, "ranks", am_world_size());
    am_json_int(&json, "groups", it->suite.n_groups);
    am_json_int(&json, "trunk_parameters", it->suite.trunk.n);
    am_event("start", &json);
    am_json_free(&json);
}

int am_iterate_prepare_all(am_iterate *it, const am_run_folder *folder, double save_every)
{
    it->folder = folder;
    am_saver_open(folder, save_every, &it->saver);
    it->suite.saver = &it->saver;
    report_start(it);
    int rc = make_base_all(it);
    it->suite.net.anchor = it->recipe->model.linearised ? it->base : NULL;
    AM_KEEP(make_heads_all(it));
    return rc;
}

int am_iterate_run_all(am_iterate *it, const am_run_folder *folder, double save_every)
{
    int rc = AM_OK;
    AM_TRY(am_iterate_prepare_all(it, folder, save_every));
    AM_TRY(test_base_all(it));
    AM_TRY(one_shot_all(it));
    AM_TRY(am_iterate_rounds_all(it));
    if (it->recipe->run_joint) {
        AM_TRY(joint_phase_all(it));
    }
    AM_TRY(am_saver_end_all(&it->saver, it->suite.comm));
cleanup:
    return rc;
}

/* What a comparison subtracts, the larger the better. */
static double gain(const am_iterate *it, const am_table_row *row)
{
    return it->table.by_loss ? -am_table_bits(row->scores.loss) : row->scores.accuracy;
}

void am_iterate_json(const am_iterate *it, am_json *json)
{
    const bool by_loss = it->table.by_loss;
    am_table_json(&it->table, json);
    const am_table_row *one_shot = am_table_find(&it->table, "one_shot");
    const am_table_row *iterative = am_table_find(&it->table, "iterative");
    const am_table_row *joint = am_table_find(&it->table, "joint");
    if (one_shot && iterative) {
        am_json_real(json, by_loss ? "gain_over_one_shot_bits" : "gain_over_one_shot",
                     gain(it, iterative) - gain(it, one_shot));
    }
    if (joint && iterative) {
        am_json_real(json, by_loss ? "above_joint_bits" : "below_joint",
                     gain(it, joint) - gain(it, iterative));
    }
    if (one_shot && iterative && joint) {
        am_json_real(json, "gap_closed",
                     (gain(it, iterative) - gain(it, one_shot)) /
                         (gain(it, joint) - gain(it, one_shot)));
    }
}
