/* The runs of iterate: every method with every number of epochs a round, each at every alpha; the
 * best of each, and of all. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "jobs/training/iterate/parts.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"

/* ---- what the runs are ---- */

static void name_run(const am_comparison *comparison, am_run *run)
{
    const bool by_method = comparison->n_methods > 1, by_epochs = comparison->n_epochs > 1;
    const char *method = by_method ? run->merge->name : "";
    char epochs[32] = "", part[32] = "";
    if (by_epochs) {
        snprintf(epochs, sizeof epochs, "epochs_%lld", (long long)run->epochs);
        snprintf(part, sizeof part, "epochs-%lld-", (long long)run->epochs);
    }
    snprintf(run->label, sizeof run->label, "%s%s%s", method, by_method && by_epochs ? "_" : "",
             epochs);
    snprintf(run->file, sizeof run->file, "%s%s%s", method, by_method ? "-" : "", part);
}

static int make_runs(am_iterate *it)
{
    const am_comparison *comparison = &it->recipe->iterate;
    it->run =
        am_new((int64_t)comparison->n_methods * comparison->n_epochs, sizeof *it->run, "runs");
    if (it->run == NULL) {
        return AM_E_NOMEM;
    }
    for (int m = 0; m < comparison->n_methods; m++) {
        for (int e = 0; e < comparison->n_epochs; e++) {
            am_run *run = &it->run[it->n_runs++];
            run->merge = &comparison->method[m];
            run->epochs = comparison->epochs[e];
            run->rounds = am_train_recipe_rounds(it->recipe, run->epochs);
            name_run(comparison, run);
        }
    }
    return AM_OK;
}

void am_runs_free(am_iterate *it)
{
    for (int i = 0; i < it->n_runs; i++) {
        free(it->run[i].point);
    }
    free(it->run);
    it->run = NULL;
    it->n_runs = 0;
}

/* The scores of where the rounds begin are in the table. */
static am_point start_point(const am_iterate *it)
{
    const char *key = it->recipe->start == AM_START_ONE_SHOT ? "one_shot" : "base";
    const am_table_row *row = am_table_find(&it->table, key);
    AM_ASSERT(row != NULL);
    return (am_point){.validation = row->choice.validation,
                      .validation_loss = row->choice.validation_loss,
                      .test = it->recipe->curve ? row->scores.accuracy : NAN,
                      .test_loss = it->recipe->curve ? row->scores.loss : NAN,
                      .noise = NAN,
                      .noise_expected = NAN};
}

/* ---- a run ---- */

/* All alphas of a run; the points of the best stay. */
static int alphas_all(am_iterate *it, am_run *run, void *current, am_choice *best,
                      am_progress *progress)
{
    const am_comparison *comparison = &it->recipe->iterate;
    int rc = AM_OK;
    am_point *point = am_new(run->rounds + 1, sizeof *point, "rounds");
    run->point = am_new(run->rounds + 1, sizeof *run->point, "rounds");
    rc = point == NULL || run->point == NULL ? AM_E_NOMEM : AM_OK;
    AM_AGREE(it->suite.comm);
    point[0] = run->point[0] = start_point(it);
    for (int a = 0; a < am_comparison_alphas(comparison, run->merge); a++) {
        const am_table_choice before = best->how;
        const bool was_set = best->is_set;
        int64_t n = 0;
        AM_TRY(am_iterate_rounds_all(it, run, am_comparison_alpha(comparison, run->merge, a),
                                     current, best, progress, point, &n));
        if (n > 0 && (!was_set || am_choice_score(it, &best->how) > am_choice_score(it, &before))) {
            am_point *points = run->point;
            run->point = point;
            run->n_points = n;
            point = points;
        }
    }
    run->how = best->how;
cleanup:
    free(point);
    return rc;
}

static void name_row(const am_run *run, const am_comparison *comparison, char *key, char *name)
{
    char text[40] = "";
    if (comparison->n_epochs > 1) {
        snprintf(text, sizeof text, ", %lld epoch%s a round", (long long)run->epochs,
                 run->epochs == 1 ? "" : "s");
    }
    snprintf(key, AM_TABLE_NAME, "iterative_%.48s", run->label);
    snprintf(name, AM_TABLE_NAME, "iterative %.31s%.32s",
             comparison->n_methods > 1 ? run->merge->name : "merge", text);
}

/* A run, its row if there are several, its best model against that of the others. */
static int run_all(am_iterate *it, am_run *run, void *current, am_choice *best, am_choice *overall,
                   am_progress *progress)
{
    char key[AM_TABLE_NAME], name[AM_TABLE_NAME];
    int rc = AM_OK;
    am_iterate_noise_warn(run);
    best->is_set = false;
    AM_TRY(alphas_all(it, run, current, best, progress));
    if (!best->is_set) {
        am_warn("iterative %s: no alpha was left, there is no row of it", run->label);
        goto cleanup; /* equal on all ranks */
    }
    am_choice_offer(it, overall, best->trunk, best->how);
    if (it->n_runs > 1) {
        name_row(run, &it->recipe->iterate, key, name);
        AM_TRY(am_iterate_test_all(it, key, name, best->trunk, best->how));
    }
cleanup:
    return rc;
}

static int64_t all_rounds(const am_iterate *it)
{
    int64_t rounds = 0;
    for (int i = 0; i < it->n_runs; i++) {
        rounds += it->run[i].rounds * am_comparison_alphas(&it->recipe->iterate, it->run[i].merge);
    }
    return rounds;
}

int am_iterate_runs_all(am_iterate *it)
{
    am_choice best = {0}, overall = {.trunk = it->final};
    am_progress progress = {0};
    void *current = am_suite_trunk_new(&it->suite);
    int rc = current == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(am_choice_new(it, &best));
    AM_KEEP(make_runs(it));
    AM_AGREE(it->suite.comm);
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, "rounds"));
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, "units"));
    am_progress_start(&progress, "iterate", all_rounds(it), "rounds");
    it->suite.trains_on = it->recipe->on_validation ? AM_VALIDATION : AM_TRAIN;
    for (int i = 0; i < it->n_runs && rc == AM_OK; i++) {
        rc = run_all(it, &it->run[i], current, &best, &overall, &progress); /* agreed */
    }
    it->suite.trains_on = AM_TRAIN;
    am_progress_end(&progress);
    AM_TRY(rc);
    if (!overall.is_set) {
        rc =
            am_fail(AM_E_NUMERIC, "every iterative run diverged: lower finetune: lr or the alphas");
        goto cleanup; /* equal on all ranks */
    }
    AM_TRY(
        am_iterate_test_all(it, "iterative", "iterative task arithmetic", it->final, overall.how));
    AM_TRY(am_iterate_save_all(it, "final.h5", it->final));
cleanup:
    free(current);
    free(best.trunk);
    return rc;
}

/* ---- as JSON ---- */

void am_runs_json(const am_iterate *it, am_json *json)
{
    am_json_array(json, "rounds");
    for (int i = 0; i < it->n_runs; i++) {
        const am_run *run = &it->run[i];
        char key[AM_TABLE_NAME], name[AM_TABLE_NAME];
        if (run->n_points == 0) {
            continue;
        }
        name_row(run, &it->recipe->iterate, key, name);
        am_json_object(json, NULL);
        am_json_string(json, "key", it->n_runs > 1 ? key : "iterative");
        am_json_string(json, "name", name);
        am_json_string(json, "method", run->merge->name);
        am_json_real(json, "alpha", run->how.alpha);
        am_json_int(json, "round_epochs", run->epochs);
        am_json_int(json, "round", run->how.round);
        am_points_json(run->point, run->n_points, run->epochs, json);
        am_json_end_object(json);
    }
    am_json_end_array(json);
}
