/* Twin-Merging of the tuned models beside their one-shot merges: a row of the table whose samples
 * are routed. The shared model is the merge of the section `merge` at its best alpha on validation
 * data: as a merge, since the router has seen these data. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include "jobs/training/iterate/parts.h"
#include "jobs/training/twin/twin.h"
#include "mpi/agree.h"
#include "mpi/log.h"

/* The best merge over all alphas, the first of equals. */
static int share_all(am_iterate *it, int64_t epochs, am_choice *best)
{
    const am_comparison *one_shot = &it->recipe->one_shot;
    const am_train_merge *merge = &it->recipe->merge;
    int rc = AM_OK;
    for (int a = 0; a < am_comparison_alphas(one_shot, merge); a++) {
        am_table_choice how = {.phase = "shared",
                               .method = merge->name,
                               .alpha = am_comparison_alpha(one_shot, merge, a),
                               .epochs = epochs,
                               .round = -1};
        AM_TRY(am_iterate_merge_all(it, merge, how.alpha, 0, it->merged));
        AM_TRY(am_iterate_validate_all(it, how.phase, it->merged, &how));
        am_choice_offer(it, best, it->merged, how);
    }
cleanup:
    return rc;
}

/* A row of what the twins around the shared model give. */
static int route_all(am_iterate *it, int64_t epochs, const am_choice *shared)
{
    const am_train_recipe *recipe = it->recipe;
    am_table_choice how = {.phase = "one_shot",
                           .method = AM_TWIN_ROW,
                           .alpha = shared->how.alpha,
                           .epochs = epochs,
                           .round = -1};
    am_twins twins = {0};
    am_scores validation = {0}, test = {0};
    double routed[AM_RECIPE_MAX_TASKS];
    char key[AM_TABLE_NAME], name[AM_TABLE_NAME], text[AM_CHOICE_TEXT];
    int rc = AM_OK;
    AM_TRY(am_twins_make_all(&it->suite, &recipe->twin, (uint64_t)recipe->seed, shared->trunk,
                             it->trunk, &twins));
    twins.folder = it->folder;
    snprintf(twins.label, sizeof twins.label, "%s-%lld-%.17g", AM_TWIN_ROW, (long long)epochs,
             how.alpha);
    AM_TRY(am_twins_eval_all(&twins, recipe->twin.route, AM_VALIDATION, &validation, NULL));
    am_iterate_told(it, how.phase, &how, &validation);
    am_info("twins of %lld-epoch models: validation %s at alpha %g", (long long)epochs,
            am_choice_text(it, &how, text), how.alpha);
    AM_TRY(am_twins_eval_all(&twins, recipe->twin.route, AM_TEST, &test, routed));
    am_twins_report(&it->suite, routed);
    snprintf(key, sizeof key, "one_shot_%s_%lld", AM_TWIN_ROW, (long long)epochs);
    snprintf(name, sizeof name, "one-shot twins, %lld epoch%s", (long long)epochs,
             epochs == 1 ? "" : "s");
    AM_TRY(am_table_add(&it->table, key, name, how, &test));
cleanup:
    am_scores_free(&validation);
    am_scores_free(&test);
    am_twins_free(&twins);
    return rc;
}

int am_iterate_twins_all(am_iterate *it, int64_t epochs, am_choice *shared)
{
    int rc = AM_OK;
    if (it->recipe->has_twin) {
        shared->is_set = false;
        AM_TRY(share_all(it, epochs, shared));
        AM_TRY(route_all(it, epochs, shared));
    }
cleanup:
    return rc;
}
