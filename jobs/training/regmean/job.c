/* The job of `allmerge regmean`: see job.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/regmean/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "jobs/training/iterate/parts.h"
#include "jobs/training/regmean/regmean.h"
#include "jobs/training/room.h"
#include "jobs/training/tuned.h"
#include "mpi/agree.h"
#include "mpi/log.h"

static const char folder_of_layers[] = "layers";

int am_regmean_check(const am_train_recipe *recipe)
{
    return am_tuned_check(recipe, "regmean", recipe->regmean.models);
}

char **am_regmean_inputs(const am_train_recipe *recipe)
{
    return am_tuned_inputs(recipe, recipe->regmean.models);
}

/* A step, or the file that an earlier attempt left of it. */
static int step_all(am_iterate *it, am_regmean *regmean, int step)
{
    am_ckpt_options options = {.overwrite = true, .recipe = it->recipe->text};
    MPI_Comm comm = it->suite.comm;
    char name[AM_RUN_PATH], path[AM_RUN_PATH];
    am_tensor_table tensors = {0};
    int64_t *offset = NULL;
    bool is_done = false;
    snprintf(name, sizeof name, "%s/%04d.h5", folder_of_layers, step);
    int rc = am_regmean_tensors(regmean, step, &tensors, &offset);
    AM_KEEP(am_run_folder_file(it->folder, path, "%s", name));
    AM_AGREE(comm);
    AM_TRY(am_run_folder_has_sound_all(comm, it->folder, name, &is_done));
    if (is_done) {
        AM_TRY(am_ckpt_load_all(comm, path, &tensors, offset, regmean->merged));
    } else {
        AM_TRY(am_regmean_step_all(regmean, step));
        AM_TRY(am_ckpt_save_all(comm, path, &tensors, offset, regmean->merged, &options));
    }
cleanup:
    am_tensor_table_free(&tensors);
    free(offset);
    return rc;
}

static int row_all(am_iterate *it, const char *key, const char *name, const char *method)
{
    am_table_choice how = {.phase = key, .method = method, .alpha = NAN, .epochs = -1, .round = -1};
    int rc = AM_OK;
    AM_TRY(am_iterate_validate_all(it, key, it->final, &how));
    AM_TRY(am_iterate_test_all(it, key, name, it->final, how));
cleanup:
    return rc;
}

static int merge_all(am_iterate *it, am_regmean *regmean)
{
    int rc = AM_OK;
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, folder_of_layers));
    for (int i = 0; i < regmean->n_steps; i++) {
        AM_TRY(step_all(it, regmean, i));
        am_info("layer %d of %d, %s, is merged", i + 1, regmean->n_steps,
                it->suite.net.node[regmean->step[i].first].name);
    }
    AM_TRY(am_iterate_save_all(it, "merged.h5", it->final));
cleanup:
    return rc;
}

int am_regmean_work_all(am_iterate *it, const am_run_folder *folder, const am_job *job)
{
    am_regmean regmean = {0};
    bool is_done = false;
    int rc = AM_OK;
    if (it->recipe->regmean.split == AM_TEST) {
        am_warn("regmean: test samples make the merge (regmean.split: test): the accuracy on them "
                "is none of unseen samples");
    }
    AM_TRY(am_room_check_all(it->suite.comm, folder, am_room_of_regmean(it)));
    AM_TRY(am_iterate_prepare_all(it, folder, job->save_every));
    AM_TRY(am_tuned_load_all(it, it->recipe->regmean.models));
    AM_TRY(am_regmean_open_all(&it->suite, &it->recipe->regmean, it->trunk, it->final, &regmean));
    AM_TRY(row_all(it, "average", "average of the models", "average"));
    AM_TRY(am_iterate_read_all(it, "merged.h5", it->final, &is_done));
    if (!is_done) {
        AM_TRY(merge_all(it, &regmean));
    }
    /* Also what an earlier attempt left that was killed right before. */
    AM_TRY(am_run_folder_remove_all(it->suite.comm, folder, folder_of_layers));
    AM_TRY(row_all(it, "regmean_plus_plus", "RegMean++", "regmean_plus_plus"));
    AM_TRY(am_tuned_test_all(it));
cleanup:
    am_regmean_free(&regmean);
    return rc;
}
