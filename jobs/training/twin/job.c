/* The job of `allmerge twin`: see job.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/twin/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/room.h"
#include "jobs/training/suite/weights.h"
#include "jobs/training/twin/origin.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"

static const char task_mark[] = "{task}";

int am_twin_check(const am_train_recipe *r)
{
    if (r->twin.models == NULL) {
        return am_fail(AM_E_RECIPE, "the recipe names no models: give twin: models: a path with "
                                    "{task} where the name of a task stands");
    }
    if (r->n_tasks > 1 && strstr(r->twin.models, task_mark) == NULL) {
        return am_fail(AM_E_RECIPE,
                       "twin.models: %s is one path for %d tasks: write {task} where their names "
                       "stand",
                       r->twin.models, r->n_tasks);
    }
    if (r->base_checkpoint == NULL) {
        return am_fail(AM_E_RECIPE, "twins are of models that are there: give base: checkpoint:, "
                                    "the base that they were tuned from");
    }
    if (r->heads_checkpoint == NULL && !r->heads_random) {
        return am_fail(AM_E_RECIPE, "twins are of models that are there: give heads: checkpoint:, "
                                    "the heads that they were tuned with");
    }
    if (r->model.linearised) {
        return am_fail(AM_E_RECIPE, "twins are of models as they are: set model.linearised to no");
    }
    return am_train_merge_check_shared(&r->merge, r->n_tasks);
}

/* Path of the model of task i. Owned; NULL with AM_E_NOMEM in the slot. */
static char *model_path(const am_train_recipe *r, int i)
{
    const char *at = strstr(r->twin.models, task_mark);
    return at == NULL ? am_text("%s", r->twin.models)
                      : am_text("%.*s%s%s", (int)(at - r->twin.models), r->twin.models, r->task[i],
                                at + strlen(task_mark));
}

char **am_twin_inputs(const am_train_recipe *r)
{
    char **others = am_train_recipe_inputs(r);
    int n = 0, i = 0;
    while (others != NULL && others[n] != NULL) {
        n++;
    }
    char **path = others != NULL ? am_new(n + r->n_tasks + 1, sizeof *path, "paths") : NULL;
    if (path == NULL) {
        am_train_recipe_inputs_free(others);
        return NULL;
    }
    memcpy(path, others, (size_t)n * sizeof *path);
    free(others);
    while (i < r->n_tasks && (path[n + i] = model_path(r, i)) != NULL) {
        i++;
    }
    if (i < r->n_tasks) {
        am_train_recipe_inputs_free(path);
        path = NULL;
    }
    return path;
}

/* ---- the steps ---- */

static int load_models_all(am_iterate *it)
{
    am_suite *suite = &it->suite;
    int rc = AM_OK;
    for (int i = 0; i < suite->n; i++) {
        char *path = model_path(it->recipe, i);
        rc = am_agree_all(suite->comm, path == NULL ? AM_E_NOMEM : AM_OK);
        /* Whole on every rank, one after the other: kept where the task's group needs it. */
        AM_KEEP(am_suite_load_trunk_all(suite, path, it->merged));
        free(path);
        AM_TRY(rc);
        if (suite->owner[i] == suite->my_group) {
            memcpy(it->trunk[i], it->merged, (size_t)(suite->trunk.n * am_suite_real_bytes(suite)));
        }
    }
cleanup:
    return rc;
}

static int share_all(am_iterate *it)
{
    bool is_done = false;
    int rc = AM_OK;
    AM_TRY(am_iterate_read_all(it, "shared.h5", it->final, &is_done));
    if (!is_done) {
        AM_TRY(am_model_pool_fill_all(it->pool, it->base, it->trunk));
        AM_TRY(am_iterate_merge_all(it, &it->recipe->merge, it->recipe->twin.lambda, 0, it->final));
        AM_TRY(am_iterate_save_all(it, "shared.h5", it->final));
    }
cleanup:
    return rc;
}

static int compress_one_all(am_iterate *it, am_twins *twins, int task)
{
    am_meta origin = {0};
    const am_ckpt_options options = {
        .overwrite = true, .meta = &origin, .recipe = it->recipe->text};
    char name[AM_RUN_PATH / 2], path[AM_RUN_PATH];
    bool is_done = false;
    int rc = AM_OK;
    snprintf(name, sizeof name, "twins/%s.h5", am_suite_task(&it->suite, task));
    AM_TRY(am_run_folder_file(it->folder, path, "%s", name)); /* the same on all ranks */
    AM_TRY(am_twin_origin_all(twins, task, it->trunk[task], &origin));
    AM_TRY(am_twin_is_from_all(twins, it->folder, name, &origin, &is_done));
    if (is_done) {
        AM_TRY(am_twins_load_all(twins, task, path));
    } else {
        AM_TRY(am_twins_compress_all(twins, task, it->trunk[task]));
        AM_TRY(am_twins_save_all(twins, task, path, &options));
    }
cleanup:
    am_meta_free(&origin);
    return rc;
}

static int compress_all(am_iterate *it, am_twins *twins)
{
    int rc = AM_OK;
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, "twins"));
    for (int i = 0; i < it->suite.n; i++) {
        AM_TRY(compress_one_all(it, twins, i));
    }
cleanup:
    return rc;
}

static int route_all(am_iterate *it, am_twins *twins)
{
    am_meta origin = {0};
    const am_ckpt_options options = {
        .overwrite = true, .meta = &origin, .recipe = it->recipe->text};
    char path[AM_RUN_PATH];
    bool is_done = false;
    int rc = am_router_origin(twins, &origin);
    AM_AGREE(it->suite.comm);
    AM_TRY(am_run_folder_file(it->folder, path, "router.h5")); /* the same on all ranks */
    AM_TRY(am_twin_is_from_all(twins, it->folder, "router.h5", &origin, &is_done));
    if (is_done) {
        AM_TRY(am_router_load_all(twins, path));
    } else {
        AM_TRY(am_twins_route_all(twins));
        AM_TRY(am_router_save_all(twins, path, &options));
    }
cleanup:
    am_meta_free(&origin);
    return rc;
}

/* ---- rows of the table ---- */

static int test_shared_all(am_iterate *it)
{
    am_table_choice how = {.phase = "shared",
                           .method = it->recipe->merge.name,
                           .alpha = it->recipe->merge.lambda >= 0 ? it->recipe->twin.lambda : NAN,
                           .epochs = -1,
                           .round = -1};
    int rc = AM_OK;
    AM_TRY(am_iterate_validate_all(it, "shared", it->final, &how));
    AM_TRY(am_iterate_test_all(it, "shared", "shared model", it->final, how));
cleanup:
    return rc;
}

static int test_individual_all(am_iterate *it)
{
    am_table_choice how = {.phase = "individual", .alpha = NAN, .epochs = -1, .round = -1};
    am_scores validation = {0}, test = {0};
    int rc = AM_OK;
    AM_TRY(am_suite_eval_own_all(&it->suite, it->trunk, AM_VALIDATION, &validation));
    AM_TRY(am_suite_eval_own_all(&it->suite, it->trunk, AM_TEST, &test));
    how.validation = validation.accuracy;
    how.validation_loss = validation.loss;
    AM_TRY(am_table_add(&it->table, "individual", "individual models", how, &test));
cleanup:
    am_scores_free(&validation);
    am_scores_free(&test);
    return rc;
}

static int test_twins_all(am_iterate *it, const am_twins *twins)
{
    const am_twin_route route = it->recipe->twin.route;
    am_table_choice how = {.phase = "twin",
                           .method = "twin_merging",
                           .alpha = it->recipe->merge.lambda >= 0 ? it->recipe->twin.lambda : NAN,
                           .epochs = -1,
                           .round = -1};
    am_scores validation = {0}, test = {0};
    double routed[AM_RECIPE_MAX_TASKS];
    int rc = AM_OK;
    AM_TRY(am_twins_eval_all(twins, route, AM_VALIDATION, &validation, NULL));
    AM_TRY(am_twins_eval_all(twins, route, AM_TEST, &test, routed));
    how.validation = validation.accuracy;
    how.validation_loss = validation.loss;
    am_twins_report(&it->suite, routed);
    AM_TRY(am_table_add(&it->table, route == AM_TWIN_SOFT ? "twin_soft" : "twin_top1",
                        route == AM_TWIN_SOFT ? "twins, by probabilities" : "twins, likeliest task",
                        how, &test));
cleanup:
    am_scores_free(&validation);
    am_scores_free(&test);
    return rc;
}

/* Of all twins and of the router, in files. */
static int64_t stored_bytes(const am_twins *twins)
{
    const am_suite *suite = twins->suite;
    const am_router *router = &twins->router;
    const int64_t wide = (int64_t)sizeof(double);
    return suite->n *
               (twins->layout.values * am_suite_real_bytes(suite) + twins->layout.indices * wide) +
           (router->trunk.n + router->head.n + 2 * router->net.features) * wide;
}

int am_twin_work_all(am_iterate *it, const am_run_folder *folder, const am_job *job)
{
    am_twins twins = {0};
    int rc = AM_OK;
    AM_TRY(am_twins_open_all(&it->suite, &it->recipe->twin, (uint64_t)it->recipe->seed, it->final,
                             &twins));
    twins.folder = folder;
    snprintf(twins.label, sizeof twins.label, "twin");
    AM_TRY(am_room_check_all(it->suite.comm, folder, am_room_of_twin(it, stored_bytes(&twins))));
    it->suite.halves_validation = true; /* all rows by what the router has not learnt from */
    AM_TRY(am_iterate_prepare_all(it, folder, job->save_every));
    AM_TRY(load_models_all(it));
    AM_TRY(share_all(it));
    AM_TRY(compress_all(it, &twins));
    AM_TRY(route_all(it, &twins));
    AM_TRY(test_shared_all(it));
    AM_TRY(test_twins_all(it, &twins));
    AM_TRY(test_individual_all(it));
cleanup:
    am_twins_free(&twins);
    return rc;
}

/* ---- reading ---- */

int am_twin_read_all(am_suite *suite, const am_train_recipe *recipe, const char *folder,
                     void *shared, am_twins *out)
{
    char *path = am_text("%s/shared.h5", folder), *heads = am_text("%s/heads.h5", folder);
    char *router = am_text("%s/router.h5", folder);
    int rc = path == NULL || heads == NULL || router == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(suite->comm);
    AM_TRY(am_suite_load_trunk_all(suite, path, shared));
    AM_TRY(am_suite_load_heads_all(suite, heads));
    AM_TRY(am_twins_open_all(suite, &recipe->twin, (uint64_t)recipe->seed, shared, out));
    for (int i = 0; i < suite->n; i++) {
        free(path);
        path = am_text("%s/twins/%s.h5", folder, am_suite_task(suite, i));
        rc = path == NULL ? AM_E_NOMEM : AM_OK;
        AM_AGREE(suite->comm);
        AM_TRY(am_twins_load_all(out, i, path));
    }
    AM_TRY(am_router_load_all(out, router));
cleanup:
    free(path);
    free(heads);
    free(router);
    return rc;
}
