/* Models that are there: see tuned.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/tuned.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "jobs/training/suite/scores.h"
#include "jobs/training/suite/weights.h"
#include "mpi/agree.h"
#include "mpi/arena.h"

static const char task_mark[] = "{task}";

int am_tuned_check(const am_train_recipe *r, const char *section, const char *models)
{
    if (models == NULL) {
        return am_fail(AM_E_RECIPE,
                       "the recipe names no models: give %s: models: a path with "
                       "{task} where the name of a task stands",
                       section);
    }
    if (r->n_tasks > 1 && strstr(models, task_mark) == NULL) {
        return am_fail(AM_E_RECIPE,
                       "%s.models: %s is one path for %d tasks: write {task} where their names "
                       "stand",
                       section, models, r->n_tasks);
    }
    if (r->base_checkpoint == NULL) {
        return am_fail(AM_E_RECIPE,
                       "%s is of models that are there: give base: checkpoint:, "
                       "the base that they were tuned from",
                       section);
    }
    if (r->heads_checkpoint == NULL && !r->heads_random) {
        return am_fail(AM_E_RECIPE,
                       "%s is of models that are there: give heads: checkpoint:, "
                       "the heads that they were tuned with",
                       section);
    }
    if (r->model.linearised) {
        return am_fail(AM_E_RECIPE, "%s is of models as they are: set model.linearised to no",
                       section);
    }
    return AM_OK;
}

/* Path of the model of task i. Owned; NULL with AM_E_NOMEM in the slot. */
static char *model_path(const char *models, const char *task)
{
    char *path = am_text("%s", ""), *longer = NULL;
    for (const char *at = models, *next = at; path != NULL && next != NULL; at = next) {
        next = strstr(at, task_mark);
        longer = next != NULL ? am_text("%s%.*s%s", path, (int)(next - at), at, task)
                              : am_text("%s%s", path, at);
        free(path);
        path = longer;
        next = next != NULL ? next + strlen(task_mark) : NULL;
    }
    return path;
}

char **am_tuned_inputs(const am_train_recipe *r, const char *models)
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
    while (i < r->n_tasks && (path[n + i] = model_path(models, r->task[i])) != NULL) {
        i++;
    }
    if (i < r->n_tasks) {
        am_train_recipe_inputs_free(path);
        path = NULL;
    }
    return path;
}

int am_tuned_load_all(am_iterate *it, const char *models)
{
    am_suite *suite = &it->suite;
    int rc = AM_OK;
    for (int i = 0; i < suite->n; i++) {
        char *path = model_path(models, it->recipe->task[i]);
        rc = am_agree_all(suite->comm, path == NULL ? AM_E_NOMEM : AM_OK);
        AM_KEEP(am_trunk_check_all(suite->comm, path, &suite->trunk.tensors));
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

int am_tuned_test_all(am_iterate *it)
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
