/* The job of `allmerge twin`: see job.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/twin/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "io/file.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/room.h"
#include "jobs/training/suite/weights.h"
#include "jobs/training/twin/origin.h"
#include "jobs/training/tuned.h"
#include "mpi/agree.h"
#include "mpi/log.h"

int am_twin_check(const am_train_recipe *recipe)
{
    const int rc = am_tuned_check(recipe, "twin", recipe->twin.models);
    return rc != AM_OK ? rc : am_train_merge_check_shared(&recipe->merge, recipe->n_tasks);
}

char **am_twin_inputs(const am_train_recipe *recipe)
{
    return am_tuned_inputs(recipe, recipe->twin.models);
}

/* ---- the steps ---- */

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
    AM_TRY(am_tuned_load_all(it, it->recipe->twin.models));
    AM_TRY(share_all(it));
    AM_TRY(compress_all(it, &twins));
    AM_TRY(route_all(it, &twins));
    AM_TRY(test_shared_all(it));
    AM_TRY(test_twins_all(it, &twins));
    AM_TRY(am_tuned_test_all(it));
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
