/* Two networks on the samples of a recipe: see samples.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/align/samples.h"

#include <inttypes.h>
#include <stdlib.h>
#include "jobs/stats/stats.h"
#include "jobs/training/suite/weights.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/progress.h"
#include "mpi/runtime.h"

const am_pair_request am_pair_defaults = {.split = AM_TRAIN, .batch = 512, .micro_batches = 8};

int am_pair_adapt(const am_pair_request *request, const am_align *align, bool with_samples,
                  bool with_joint, int64_t extra, am_train_recipe *recipe)
{
    const am_stats_request stats = {.fisher = AM_FISHER_NONE,
                                    .split = request->split,
                                    .with_grams = with_joint,
                                    .samples = with_samples ? request->samples : 1,
                                    .batch = request->batch,
                                    .micro_batches = request->micro_batches};
    am_stats_adapt(&stats, recipe);
    recipe->stats.what.pair = with_samples ? &align->pair : NULL;
    recipe->align_bytes = extra;
    return request->micro_batches <= request->batch
               ? AM_OK
               : am_fail(AM_E_USAGE,
                         "--micro-batches %" PRId64
                         " are more than the samples of a --batch, %" PRId64,
                         request->micro_batches, request->batch);
}

void am_pair_sums_free(am_pair_sums *sums)
{
    am_stats_layout_free(&sums->layout);
    free(sums->whole);
    free(sums->cross);
    free(sums->own);
    *sums = (am_pair_sums){0};
}

/* ---- work ---- */

static int load_trunks_all(am_suite *suite, const char *one, const char *two, void *trunk[2])
{
    int rc = AM_OK;
    trunk[0] = am_suite_trunk_new(suite);
    trunk[1] = am_suite_trunk_new(suite);
    AM_KEEP(trunk[0] == NULL || trunk[1] == NULL ? AM_E_NOMEM : AM_OK);
    AM_AGREE(am_world());
    AM_TRY(am_suite_load_trunk_all(suite, one, trunk[0]));
    AM_TRY(am_suite_load_trunk_all(suite, two, trunk[1]));
cleanup:
    return rc;
}

static am_samples samples_of(const am_train_recipe *recipe, const am_suite *suite, int i)
{
    return am_dataset_samples(suite->data[i], recipe->stats_split);
}

static int check_samples(const am_train_recipe *recipe, const am_suite *suite)
{
    for (int i = 0; i < suite->n; i++) {
        if (samples_of(recipe, suite, i).n == 0) {
            return am_fail(AM_E_DATA,
                           "task %s has no samples in its split %s: take another --split",
                           am_suite_task(suite, i), am_dataset_split_name[recipe->stats_split]);
        }
    }
    return AM_OK;
}

static int batches_all(const am_train_recipe *recipe, const am_suite *suite, const void *trunk,
                       am_statistics *statistics, int64_t *samples)
{
    am_progress progress;
    int64_t batches = 0;
    int rc = AM_OK;
    for (int i = 0; i < suite->n; i++) {
        batches += am_statistics_batches(&recipe->stats, samples_of(recipe, suite, i).n);
    }
    am_progress_start(&progress, "activations", batches, "batches");
    for (int i = 0; i < suite->n; i++) {
        const am_task task = {.name = am_suite_task(suite, i),
                              .train = samples_of(recipe, suite, i),
                              .head = suite->head_params[i],
                              .classes = am_dataset_classes(suite->data[i])};
        for (int64_t b = 0; b < am_statistics_batches(&recipe->stats, task.train.n); b++) {
            AM_TRY(am_statistics_batch_all(statistics, trunk, &task, b));
            am_progress_add(&progress, 1);
        }
        *samples += task.train.n;
    }
cleanup:
    am_progress_end(&progress);
    return rc;
}

/* The sums of all ranks move into `out`. */
static int take_sums_all(am_statistics *statistics, const am_stats_pair *pair, am_pair_sums *out)
{
    int rc = AM_OK;
    out->cross = am_new(pair->n_fields + 1, sizeof *out->cross, "activations");
    out->own = am_new(pair->n_fields + 1, sizeof *out->own, "activations");
    AM_KEEP(out->cross == NULL || out->own == NULL ? AM_E_NOMEM : AM_OK);
    AM_AGREE(am_world());
    AM_TRY(am_statistics_gather_all(statistics, statistics->whole));
    out->layout = statistics->layout;
    out->whole = statistics->whole;
    statistics->layout = (am_stats_layout){0};
    statistics->whole = NULL;
    for (int f = 0; f < pair->n_fields; f++) {
        out->cross[f] = out->whole + out->layout.cross[f];
        out->own[f] = out->whole + out->layout.own[f];
    }
cleanup:
    return rc;
}

int am_pair_sums_all(am_train_recipe *recipe, const char *one, const char *two, am_pair_sums *out)
{
    am_suite suite = {.comm = MPI_COMM_NULL, .group = MPI_COMM_NULL};
    am_statistics statistics = {0};
    void *trunk[2] = {NULL};
    int rc = AM_OK;
    *out = (am_pair_sums){0};
    AM_TRY(am_suite_open_all(am_world(), recipe->folder, (const char *const *)recipe->task,
                             recipe->n_tasks, recipe->limit, recipe->room, &recipe->model.net,
                             recipe->dtype, &suite));
    AM_TRY(check_samples(recipe, &suite)); /* the same on all ranks */
    if (recipe->stats_split == AM_TEST) {
        am_warn("test samples are used (--split test): an accuracy on them is then none of unseen "
                "samples");
    }
    AM_TRY(load_trunks_all(&suite, one, two, trunk));
    AM_TRY(am_statistics_open_all(am_world(), suite.ops, &suite.net, &recipe->stats, &statistics));
    statistics.other = trunk[1];
    AM_TRY(batches_all(recipe, &suite, trunk[0], &statistics, &out->samples));
    AM_TRY(take_sums_all(&statistics, recipe->stats.what.pair, out));
cleanup:
    am_statistics_free(&statistics);
    am_suite_close_all(&suite);
    free(trunk[0]);
    free(trunk[1]);
    return rc;
}
