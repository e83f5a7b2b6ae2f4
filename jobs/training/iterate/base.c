/* The base and the heads: the first step of every training job. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <stdio.h>
#include "io/versions.h"
#include "jobs/training/suite/adapt.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/suite/train.h"
#include "jobs/training/suite/weights.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"
#include "solver/linalg/blas_info.h"

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

/* Random heads, each keyed by its task. */
static int draw_heads(am_suite *suite, int64_t seed)
{
    char purpose[AM_MAX_NAME + 16];
    int rc = AM_OK;
    for (int i = 0; i < suite->n; i++) {
        snprintf(purpose, sizeof purpose, "head of %s", am_suite_task(suite, i));
        AM_KEEP(suite->ops->init(&suite->head[i], (uint64_t)seed, purpose, suite->head_params[i]));
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
    } else if (recipe->heads_random) {
        am_info("heads: random, seed %lld", (long long)recipe->seed);
        rc = draw_heads(suite, recipe->seed);
        AM_AGREE(suite->comm);
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
