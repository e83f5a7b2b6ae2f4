/* A training job: see job.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/job.h"

#include <stdlib.h>
#include <string.h>
#include "jobs/training/fit.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

/* Reduce the recipe to one of its tasks. */
static int keep_task(am_train_recipe *recipe, const char *name)
{
    int found = -1;
    const char *names[AM_RECIPE_MAX_TASKS + 1] = {0};
    for (int i = 0; i < recipe->n_tasks; i++) {
        names[i] = recipe->task[i];
        found = strcmp(recipe->task[i], name) == 0 ? i : found;
    }
    if (found < 0) {
        const char *nearest = am_nearest(names, name);
        return am_fail(AM_E_USAGE, "--task %s is not a task of the recipe%s%s%s", name,
                       nearest ? "; did you mean '" : "", nearest ? nearest : "",
                       nearest ? "'?" : "");
    }
    char *kept = recipe->task[found];
    recipe->task[found] = recipe->task[0];
    recipe->task[0] = kept;
    for (int i = 1; i < recipe->n_tasks; i++) {
        free(recipe->task[i]);
    }
    recipe->n_tasks = 1;
    return AM_OK;
}

int am_job_recipe_all(const am_args *args, const char *task, am_train_recipe *out)
{
    int rc = AM_OK;
    AM_TRY(am_train_recipe_read_all(am_world(), args->positional[0], args->set, args->n_set, out));
    if (task != NULL) {
        AM_TRY(keep_task(out, task)); /* the same on all ranks */
        AM_TRY(am_train_recipe_resolve(out));
    }
cleanup:
    return rc;
}

char *am_job_table(const am_iterate *it, const am_job *job)
{
    (void)job;
    return am_table_text(&it->table);
}

/* The table for people, result.json, and the line for programs. */
static int report_all(const am_iterate *it, const am_run_folder *folder, const am_job *job)
{
    am_json json = {0};
    char *text = job->text(it, job), model[AM_RUN_PATH];
    int rc = text == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(am_run_folder_file(folder, model, "%s", job->model != NULL ? job->model : ""));
    am_json_object(&json, NULL);
    am_json_string(&json, "job", job->name);
    am_json_int(&json, "seed", it->recipe->seed);
    job->describe(it, job, &json);
    am_json_end_object(&json);
    AM_KEEP(am_json_finish(&json));
    AM_AGREE(it->suite.comm);
    AM_TRY(am_train_report_memory_all(it->suite.comm));
    AM_TRY(am_run_folder_text_all(it->suite.comm, folder, "table.txt", text));
    AM_TRY(am_run_folder_text_all(it->suite.comm, folder, "result.json", json.text));
    am_info("\n%s", text);
    if (job->model != NULL) {
        am_info("model: %s", model);
    }
    am_result(&json);
cleanup:
    free(text);
    am_json_free(&json);
    return rc;
}

int am_job_run_all(const am_args *args, const am_job *job)
{
    am_train_recipe recipe = {0};
    am_run_folder folder = {.lock = -1};
    am_iterate it = {0};
    char **inputs = NULL;
    bool is_open = false;
    int rc = AM_OK;
    am_memory_keep_no_holes();
    AM_TRY(am_job_recipe_all(args, job->task, &recipe));
    AM_TRY(job->check != NULL ? job->check(&recipe) : AM_OK); /* the same on all ranks */
    AM_TRY(
        am_train_fit_all(am_world(), &recipe, job->kind, am_world_size(), job->memory, NULL, NULL));
    AM_TRY(am_iterate_open_all(am_world(), &recipe, &it));
    is_open = true;
    inputs = job->inputs != NULL ? job->inputs(&recipe) : am_train_recipe_inputs(&recipe);
    rc = inputs == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(am_world());
    AM_TRY(am_run_folder_open_all(am_world(), job->output, job->name, recipe.text,
                                  (const char *const *)inputs, job->overwrite, &folder));
    if (folder.is_finished) {
        am_info("%s is finished: nothing to do (--overwrite starts over)", folder.path);
        AM_TRY(am_run_folder_result_all(am_world(), &folder));
    } else {
        AM_TRY(job->work_all(&it, &folder, job));
        AM_TRY(report_all(&it, &folder, job));
    }
cleanup:
    if (is_open) {
        am_iterate_close_all(&it);
    }
    am_run_folder_close(&folder);
    am_train_recipe_inputs_free(inputs);
    am_train_recipe_free(&recipe);
    return rc;
}
