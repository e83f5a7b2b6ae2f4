/* Twin-Merging of the tuned models beside their one-shot merges: a row of the table whose samples
 * are routed. The shared model is the merge of the section `merge` at the alpha that is best on
 * validation data. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include "jobs/training/iterate/parts.h"
#include "jobs/training/twin/twin.h"
#include "mpi/agree.h"
#include "mpi/log.h"

/* Scores of the twins around the merge at how->alpha of what the pool holds. routed: as in
 * am_twins_eval_all. */
static int eval_all(am_iterate *it, const am_table_choice *how, am_split split, am_scores *out,
                    double *routed)
{
    const am_train_recipe *recipe = it->recipe;
    am_twins twins = {0};
    int rc = AM_OK;
    AM_TRY(am_iterate_merge_all(it, &recipe->merge, how->alpha, 0, it->merged));
    AM_TRY(am_twins_make_all(&it->suite, &recipe->twin, (uint64_t)recipe->seed, it->merged,
                             it->trunk, &twins));
    twins.folder = it->folder;
    snprintf(twins.label, sizeof twins.label, "%s-%lld-%.17g", AM_TWIN_ROW, (long long)how->epochs,
             how->alpha);
    AM_TRY(am_twins_eval_all(&twins, recipe->twin.route, split, out, routed));
cleanup:
    am_twins_free(&twins);
    return rc;
}

/* The best alpha on validation data, the first of equals. */
static int choose_all(am_iterate *it, int64_t epochs, am_table_choice *best)
{
    const am_comparison *one_shot = &it->recipe->one_shot;
    const am_train_merge *merge = &it->recipe->merge;
    char text[AM_CHOICE_TEXT];
    int rc = AM_OK;
    for (int a = 0; a < am_comparison_alphas(one_shot, merge); a++) {
        am_table_choice how = {.phase = "one_shot",
                               .method = AM_TWIN_ROW,
                               .alpha = am_comparison_alpha(one_shot, merge, a),
                               .epochs = epochs,
                               .round = -1};
        am_scores scores = {0};
        AM_TRY(eval_all(it, &how, AM_VALIDATION, &scores, NULL));
        am_iterate_told(it, "one_shot", &how, &scores);
        am_scores_free(&scores);
        if (a == 0 || am_choice_score(it, &how) > am_choice_score(it, best)) {
            *best = how;
        }
    }
    am_info("twins of %lld-epoch models: validation %s at alpha %g", (long long)epochs,
            am_choice_text(it, best, text), best->alpha);
cleanup:
    return rc;
}

int am_iterate_twins_all(am_iterate *it, int64_t epochs)
{
    am_table_choice best = {0};
    am_scores scores = {0};
    double routed[AM_RECIPE_MAX_TASKS];
    char key[AM_TABLE_NAME], name[AM_TABLE_NAME];
    int rc = AM_OK;
    if (!it->recipe->has_twin) {
        return AM_OK;
    }
    AM_TRY(choose_all(it, epochs, &best));
    AM_TRY(eval_all(it, &best, AM_TEST, &scores, routed));
    am_twins_report(&it->suite, routed);
    snprintf(key, sizeof key, "one_shot_%s_%lld", AM_TWIN_ROW, (long long)epochs);
    snprintf(name, sizeof name, "one-shot twins, %lld epoch%s", (long long)epochs,
             epochs == 1 ? "" : "s");
    AM_TRY(am_table_add(&it->table, key, name, best, &scores));
cleanup:
    am_scores_free(&scores);
    return rc;
}
