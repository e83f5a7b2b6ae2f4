/* What align and pleas would take: see plan.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/align/plan.h"

#include <stdlib.h>
#include "io/file.h"
#include "jobs/align/networks.h"
#include "jobs/align/samples.h"
#include "jobs/training/fit.h"
#include "mpi/agree.h"
#include "mpi/runtime.h"
#include "solver/align/pleas.h"

static const double most_budget = 2;

/* Classes of the task that has most, and of all together. */
static int classes_all(const am_train_recipe *recipe, int64_t *most, int64_t *all)
{
    int rc = AM_OK;
    char *path = NULL;
    *most = 1;
    *all = 0;
    for (int i = 0; i < recipe->n_tasks; i++) {
        am_dataset_shape shape;
        free(path);
        path = am_text("%s/%s.h5", recipe->folder, recipe->task[i]);
        rc = path == NULL ? AM_E_NOMEM : AM_OK;
        AM_AGREE(am_world());
        AM_TRY(am_dataset_shape_all(am_world(), path, recipe->limit, &shape));
        *most = shape.classes > *most ? shape.classes : *most;
        *all += shape.classes;
    }
cleanup:
    free(path);
    return rc;
}

int am_align_plan_all(am_train_recipe *recipe, bool is_pleas, int ranks, int64_t memory,
                      am_train_need *need, am_process *process)
{
    static const am_tensor_table no_heads = {0};
    const am_pair_request request = am_pair_defaults;
    am_net net = {0};
    am_param_layout trunk = {0};
    am_align align = {0};
    am_widen widen = {0};
    int64_t classes = 1, all_classes = 0, bytes = 0;
    int rc = AM_OK;
    AM_TRY(
        am_networks_shape_all(am_world(), recipe, is_pleas ? "pleas" : "align", 0, &net, &trunk));
    AM_TRY(classes_all(recipe, &classes, &all_classes));
    rc = am_align_find(&net, &no_heads, false, &align);
    if (rc == AM_OK) {
        bytes = am_align_match_bytes(&align);
    }
    if (rc == AM_OK && is_pleas) {
        rc = am_widen_make(&net, &align, most_budget, &widen);
        bytes = rc == AM_OK ? am_pleas_work_bytes(&align, &widen, classes) : 0;
        if (rc == AM_OK) { /* the merged heads, and a copy to write: heads.h */
            bytes +=
                2 * all_classes * (am_shape_features(&widen.net.out) + 1) * (int64_t)sizeof(double);
        }
    }
    AM_KEEP(rc != AM_OK ? rc : am_pair_adapt(&request, &align, true, is_pleas, bytes, recipe));
    AM_AGREE(am_world());
    AM_TRY(am_train_fit_all(am_world(), recipe, AM_JOB_ALIGN, ranks, memory, need, process));
cleanup:
    if (widen.from != NULL) {
        am_widen_free(&widen);
    }
    am_align_free(&align);
    am_param_layout_free(&trunk);
    am_net_free(&net);
    return rc;
}
