/* Every task finetuned from the base, merged at some numbers of epochs; and individual models.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "jobs/training/iterate/model_stats.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/suite/train.h"
#include "jobs/training/suite/scores.h"
#include "mpi/agree.h"
#include "mpi/log.h"

/* Keep the snapshot of each own task that is the best on validation data so far; best[tasks]. */
static int keep_individuals_all(am_iterate *it, int64_t epochs, am_table_choice *best)
{
    am_scores scores = {0};
    int rc = am_suite_eval_own_all(&it->suite, it->trunk, AM_VALIDATION, &scores);
    it->individual[it->n_individual++] = (am_individual){
        .epochs = epochs, .validation = scores.accuracy, .validation_loss = scores.loss};
    for (int i = 0; i < it->suite.n && rc == AM_OK; i++) {
        const am_eval_result *task = &scores.task[i];
        const am_table_choice how = {.validation = (double)task->correct / (double)task->n,
                                     .validation_loss = task->loss};
        if (best[i].validation < 0 || am_choice_score(it, &how) > am_choice_score(it, &best[i])) {
            best[i] = how;
            if (am_iterate_is_mine(it, i)) {
                am_iterate_copy(it, it->best[i], it->trunk[i]);
            }
        }
    }
    am_scores_free(&scores);
    return rc;
}

/* A merge of what the pool holds at every alpha. variant: of `merge`, which it is. */
static int try_alphas_all(am_iterate *it, const am_train_merge *merge, int variant, int64_t epochs,
                          am_choice *best)
{
    const am_comparison *one_shot = &it->recipe->one_shot;
    const am_train_merge one = am_train_merge_variant(merge, variant);
    int rc = AM_OK;
    for (int a = 0; a < am_comparison_alphas(one_shot, merge); a++) {
        am_table_choice how = {.phase = "one_shot",
                               .method = merge->name,
                               .merge = merge,
                               .variant = variant,
                               .alpha = am_comparison_alpha(one_shot, merge, a),
                               .epochs = epochs,
                               .round = -1};
        AM_TRY(am_iterate_merge_all(it, &one, how.alpha, 0, it->merged));
        AM_TRY(am_iterate_validate_all(it, "one_shot", it->merged, &how));
        am_choice_offer(it, best, it->merged, how);
    }
cleanup:
    return rc;
}

/* The best merge of what the pool holds by one method, over all that is searched. */
static int best_merge_all(am_iterate *it, const am_train_merge *merge, int64_t epochs,
                          am_choice *best)
{
    char text[AM_CHOICE_TEXT], searched[AM_SEARCHED_TEXT];
    int rc = AM_OK;
    best->is_set = false;
    for (int v = 0; v < am_train_merge_variants(merge); v++) {
        AM_TRY(try_alphas_all(it, merge, v, epochs, best));
    }
    am_info("one-shot merge of %lld-epoch models by %s: validation %s at alpha %g%s",
            (long long)epochs, merge->name, am_choice_text(it, &best->how, text), best->how.alpha,
            am_train_merge_searched_text(merge, best->how.variant, searched));
cleanup:
    return rc;
}

/* A row for the best merge by each method of what the pool holds. */
static int compare_all(am_iterate *it, int64_t epochs, am_choice *best, am_choice *overall)
{
    const am_comparison *one_shot = &it->recipe->one_shot;
    int rc = AM_OK;
    for (int m = 0; m < one_shot->n_methods; m++) {
        const am_train_merge *merge = &one_shot->method[m];
        const bool is_one = one_shot->n_methods == 1;
        char key[AM_TABLE_NAME], name[AM_TABLE_NAME];
        AM_TRY(best_merge_all(it, merge, epochs, best));
        am_choice_offer(it, overall, best->trunk, best->how);
        snprintf(key, sizeof key, "one_shot_%s%s%lld", is_one ? "" : merge->name, is_one ? "" : "_",
                 (long long)epochs);
        snprintf(name, sizeof name, "one-shot %s, %lld epoch%s", is_one ? "merge" : merge->name,
                 (long long)epochs, epochs == 1 ? "" : "s");
        AM_TRY(am_iterate_test_all(it, key, name, best->trunk, best->how));
    }
cleanup:
    return rc;
}

static int test_individuals_all(am_iterate *it, const am_table_choice *best)
{
    am_scores scores = {0};
    am_table_choice how = {.phase = "individual", .alpha = NAN, .epochs = -1, .round = -1};
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
                                 recipe->one_shot.epochs[recipe->one_shot.n_epochs - 1]);
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
        if (am_iterate_is_mine(it, i)) {
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
int am_iterate_one_shot_all(am_iterate *it)
{
    const am_train_recipe *recipe = it->recipe;
    am_choice best = {0}, overall = {0};
    int64_t done = 0;
    char end[32];
    am_table_choice individual[AM_RECIPE_MAX_TASKS] = {0};
    int rc = am_choice_new(it, &best);
    AM_KEEP(am_choice_new(it, &overall));
    AM_AGREE(it->suite.comm);
    for (int i = 0; i < it->suite.n; i++) {
        individual[i].validation = -1.0; /* none yet */
    }
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, "tuned"));
    am_iterate_start_tasks(it, it->base);
    for (int k = 0; k < recipe->one_shot.n_epochs; k++) {
        AM_TRY(tune_all(it, done, recipe->one_shot.epochs[k]));
        done = recipe->one_shot.epochs[k];
        AM_TRY(keep_individuals_all(it, done, individual));
        AM_TRY(am_model_pool_fill_all(it->pool, it->base, it->trunk));
        AM_TRY(am_iterate_vectors_all(it, "one_shot", NAN, done, NULL));
        snprintf(end, sizeof end, "epochs-%03lld", (long long)done);
        AM_TRY(am_iterate_stats_all(it, recipe->one_shot.method, recipe->one_shot.n_methods,
                                    "stats", end));
        AM_TRY(compare_all(it, done, &best, &overall));
        AM_TRY(am_iterate_twins_all(it, done, &best));
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
