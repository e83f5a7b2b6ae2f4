/* Statistics of the models that are merged: see model_stats.h. SPDX-License-Identifier:
 * BSD-3-Clause */
#include "jobs/training/iterate/model_stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/commit/digest.h"
#include "io/commit/identity.h"
#include "io/file.h"
#include "jobs/stats/make.h"
#include "jobs/stats/names.h"
#include "jobs/stats/origin.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/suite/train.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "solver/merge/memory.h"

/* Of all values, by which a file is found again; the fingerprint that merges look at is of some. */
static const char model_key[] = "stats.model_xxh3";

/* A file of them. */
typedef struct one {
    am_iterate *it;
    int task;
    char name[AM_RUN_PATH / 8], path[AM_RUN_PATH];
    am_hex model; /* digest of the model's values */
} one;

/* ---- one model ---- */

/* Is the file there, and of this model? */
static int is_made_all(const one *o, bool *is_made)
{
    MPI_Comm group = o->it->suite.group;
    am_ckpt *ckpt = NULL;
    int rc = AM_OK;
    AM_TRY(am_run_folder_has_sound_all(group, o->it->folder, o->name, is_made));
    if (*is_made) {
        AM_TRY(am_ckpt_open_all(group, o->path, &ckpt));
        const char *of = am_meta_get(am_ckpt_meta(ckpt), model_key);
        *is_made = of != NULL && strcmp(of, o->model.text) == 0;
    }
cleanup:
    am_ckpt_close(&ckpt);
    return rc;
}

/* What the sums on disk are of: the folder is this recipe's. */
static int identify(const one *o, char **identity)
{
    char *job =
        am_text("statistics of %s, model %s", am_suite_task(&o->it->suite, o->task), o->model.text);
    const int rc =
        job == NULL ? AM_E_NOMEM : am_identity_make(job, o->it->recipe->text, true, NULL, identity);
    free(job);
    return rc;
}

static am_task task_of(const one *o)
{
    const int64_t most = o->it->recipe->statistics.samples;
    am_task task = am_suite_training(&o->it->suite, o->task);
    task.train.n = most > 0 && most < task.train.n ? most : task.train.n;
    return task;
}

/* What the file says of its model, as `allmerge stats` has it say. */
static int describe(const one *o, const am_tensor_table *statistics, am_meta *meta)
{
    const am_suite *suite = &o->it->suite;
    am_memory trunk = {.label = o->name,
                       .tensors = &suite->trunk.tensors,
                       .dtype = o->it->recipe->dtype,
                       .offset = suite->trunk.offset,
                       .reals = o->it->trunk[o->task],
                       .n = suite->trunk.n};
    const am_source source = am_memory_source(&trunk);
    am_hex origin = {{0}};
    int rc = am_stats_origin(&source, statistics, trunk.dtype, &origin);
    AM_KEEP(am_meta_set(meta, AM_STATS_ORIGIN_DTYPE, am_dtype_name(trunk.dtype)));
    AM_KEEP(am_meta_set(meta, AM_STATS_ORIGIN, origin.text));
    AM_KEEP(am_meta_set(meta, model_key, o->model.text));
    return rc;
}

/* Statistics in `statistics`, which has begun, to the file. */
static int publish_all(const one *o, am_statistics *statistics)
{
    MPI_Comm group = o->it->suite.group;
    const am_task task = task_of(o);
    am_stats_work work = {.statistics = statistics,
                          .trunk = o->it->trunk[o->task],
                          .task = &task,
                          .n = 1,
                          .output = o->path,
                          .other = AM_SUMS_REPLACE,
                          .save_every = o->it->saver.pace.every};
    am_ckpt_writer *writer = NULL;
    am_meta meta = {0};
    const am_ckpt_options options = {
        .overwrite = true, .meta = &meta, .recipe = o->it->recipe->text};
    char *identity = NULL;
    int rank, rc = describe(o, &statistics->layout.tensors, &meta);
    MPI_Comm_rank(group, &rank);
    AM_KEEP(am_snapshot_set(&meta, "stats.samples", task.train.n));
    if (rank == 0) {
        AM_KEEP(identify(o, &identity));
    }
    AM_AGREE(group);
    work.identity = identity;
    AM_TRY(am_ckpt_create_all(group, o->path, &statistics->layout.tensors, &options, &writer));
    AM_TRY(am_stats_make_all(&work, &writer));
cleanup:
    am_meta_free(&meta);
    free(identity);
    return rc;
}

/* The model of an own task. Collective in the group. */
static int make_one_all(am_iterate *it, int task, const am_net *net, const char *name)
{
    am_suite *suite = &it->suite;
    am_statistics statistics = {0};
    one o = {.it = it, .task = task};
    bool is_made = false;
    int rc = AM_OK;
    snprintf(o.name, sizeof o.name, "%s", name);
    o.model =
        am_hex_of(am_digest_bytes(it->trunk[task], suite->trunk.n * am_suite_real_bytes(suite)));
    AM_TRY(am_run_folder_file(it->folder, o.path, "%s", o.name)); /* the same in the group */
    AM_TRY(is_made_all(&o, &is_made));
    if (!is_made) {
        AM_TRY(
            am_statistics_open_all(suite->group, suite->ops, net, &it->recipe->stats, &statistics));
        AM_TRY(publish_all(&o, &statistics));
    } else { /* of an attempt that was killed right after */
        AM_TRY(am_sums_remove_all(suite->group, o.path));
    }
cleanup:
    am_statistics_free(&statistics);
    return rc;
}

/* ---- all of them ---- */

static void name_of(const am_iterate *it, int task, const char *folder, const char *end, char *name,
                    size_t size)
{
    snprintf(name, size, "%s/%s-%s.h5", folder, am_suite_task(&it->suite, task), end);
}

int am_model_stats_net(const am_net *net, int64_t features, am_net *out)
{
    int rc = am_net_copy(net, out);
    for (int i = 0; i < out->n_freeze; i++) {
        free(out->freeze[i]);
    }
    out->n_freeze = 0;
    out->smoothing = 0;
    AM_KEEP(am_net_shape(out, features));
    return rc;
}

int am_model_stats_bytes(const am_iterate *it, int64_t *bytes)
{
    am_net net = {0};
    am_stats_layout layout = {0};
    int rc = AM_OK;
    *bytes = 0;
    if (am_train_recipe_needs_stats(it->recipe)) {
        rc = am_model_stats_net(&it->recipe->model.net, am_dataset_features(it->suite.data[0]),
                                &net);
        AM_KEEP(am_stats_layout_make(&net, &it->recipe->stats.what, &layout));
        *bytes = rc == AM_OK ? am_tensor_table_bytes(&layout.tensors) : 0;
    }
    am_stats_layout_free(&layout);
    am_net_free(&net);
    return rc;
}

static int make_own_all(am_iterate *it, const char *folder, const char *end)
{
    am_net net = {0};
    int rc =
        am_model_stats_net(&it->recipe->model.net, am_dataset_features(it->suite.data[0]), &net);
    AM_AGREE(it->suite.comm);
    for (int i = 0; i < it->suite.n; i++) {
        if (am_iterate_is_mine(it, i)) {
            char name[AM_RUN_PATH / 8];
            name_of(it, i, folder, end, name, sizeof name);
            AM_KEEP(make_one_all(it, i, &net, name));
        }
    }
    AM_AGREE(it->suite.comm);
cleanup:
    am_net_free(&net);
    return rc;
}

/* ---- reading ---- */

void am_iterate_stats_free(am_iterate *it)
{
    am_model_stats *s = it->stats;
    for (int i = 0; s != NULL && s->ckpt != NULL && i < s->n; i++) {
        am_ckpt_close(&s->ckpt[i]);
    }
    if (s != NULL) {
        free(s->ckpt);
        free(s->source);
        free(s->index);
        free(s->fisher);
        free(s->gram);
    }
    free(s);
    it->stats = NULL;
}

static int room_for(am_iterate *it)
{
    const int n = it->suite.n;
    const am_stats_options *what = &it->recipe->stats.what;
    am_model_stats *s = it->stats = am_new(1, sizeof *s, "statistics");
    if (s == NULL) {
        return AM_E_NOMEM;
    }
    s->n = n;
    s->ckpt = am_new(n, sizeof *s->ckpt, "statistics");
    s->source = am_new(n, sizeof *s->source, "statistics");
    s->index = am_new(2 * (int64_t)n * it->suite.trunk.tensors.n, sizeof *s->index, "statistics");
    s->fisher = am_new(n, sizeof *s->fisher, "statistics");
    s->gram = am_new(n, sizeof *s->gram, "statistics");
    if (!s->ckpt || !s->source || !s->index || !s->fisher || !s->gram) {
        return AM_E_NOMEM;
    }
    if (what->fisher == AM_FISHER_NONE) {
        free(s->fisher);
        s->fisher = NULL;
    }
    if (!what->with_grams) {
        free(s->gram);
        s->gram = NULL;
    }
    return AM_OK;
}

/* Where the statistics of every tensor of the trunk lie in the file of a task. */
static void bind(am_iterate *it, int task)
{
    am_model_stats *s = it->stats;
    const am_tensor_table *trunk = &it->suite.trunk.tensors, *file = s->source[task].tensors;
    int64_t *fisher = s->index + task * trunk->n;
    int64_t *gram = s->index + (s->n + task) * trunk->n;
    for (int64_t i = 0; i < trunk->n; i++) {
        fisher[i] = am_stats_find_fisher(file, trunk->t[i].name);
        gram[i] = am_stats_find_gram(file, trunk->t[i].name);
    }
    if (s->fisher != NULL) {
        s->fisher[task] = (am_merge_input){&s->source[task], fisher};
    }
    if (s->gram != NULL) {
        s->gram[task] = (am_merge_input){&s->source[task], gram};
    }
}

static int read_one_all(am_iterate *it, int task, const char *name)
{
    char path[AM_RUN_PATH];
    int rc = AM_OK;
    AM_TRY(am_run_folder_file(it->folder, path, "%s", name)); /* the same on all ranks */
    AM_TRY(am_ckpt_open_all(it->suite.comm, path, &it->stats->ckpt[task]));
    rc = am_ckpt_source(it->stats->ckpt[task], AM_MODEL_STATS_HELD, &it->stats->source[task]);
    AM_AGREE(it->suite.comm);
    bind(it, task);
cleanup:
    return rc;
}

int am_iterate_stats_all(am_iterate *it, const am_train_merge *merges, int n, const char *folder,
                         const char *end)
{
    int rc = AM_OK;
    am_iterate_stats_free(it);
    if (!am_merges_need_stats(merges, n)) {
        return AM_OK;
    }
    AM_TRY(am_run_folder_sub_all(it->suite.comm, it->folder, folder));
    AM_TRY(make_own_all(it, folder, end));
    rc = room_for(it);
    AM_AGREE(it->suite.comm);
    for (int i = 0; i < it->suite.n; i++) {
        char name[AM_RUN_PATH / 8];
        name_of(it, i, folder, end, name, sizeof name);
        AM_TRY(read_one_all(it, i, name));
    }
cleanup:
    return rc;
}
