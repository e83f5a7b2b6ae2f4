/* One model trained on the batches of all tasks. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "jobs/training/iterate/parts.h"
#include "jobs/training/suite/train.h"
#include "mpi/agree.h"
#include "mpi/log.h"

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
                                     epoch - 1, am_train_recipe_joint_epochs(it->recipe));
        options.epochs = 1;
        am_saver_step(&it->saver, false, "joint training, epoch %lld", (long long)epoch);
        AM_TRY(am_suite_joint_all(&it->suite, current, &options));
        AM_TRY(am_iterate_save_all(it, name, current));
        AM_TRY(am_saver_done_all(&it->saver, it->suite.comm));
    }
cleanup:
    return rc;
}

int am_iterate_joint_all(am_iterate *it)
{
    char text[AM_CHOICE_TEXT];
    const am_train_recipe *recipe = it->recipe;
    am_choice best = {0};
    void *current = am_suite_trunk_new(&it->suite);
    int rc = current == NULL ? AM_E_NOMEM : AM_OK;
    AM_KEEP(am_choice_new(it, &best));
    AM_AGREE(it->suite.comm);
    const int64_t epochs = am_train_recipe_joint_epochs(recipe);
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, "joint"));
    am_iterate_copy(it, current, it->base);
    for (int64_t epoch = 1; epoch <= epochs; epoch++) {
        am_table_choice how = {.phase = "joint", .alpha = NAN, .epochs = epoch, .round = -1};
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
