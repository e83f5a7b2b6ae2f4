/* Sections gradients, plane and stats of a training recipe. SPDX-License-Identifier: BSD-3-Clause
 */
#include <stddef.h>
#include "jobs/recipe/bind.h"
#include "jobs/training/recipe/parts.h"
#include "mpi/error.h"

static const am_param gradients_table[] = {
    {"epochs", AM_PARAM_INT, offsetof(am_gradients_section, epochs), "0", 0, 1e6, NULL,
     "epochs whose gradients are measured, 0: the most of one_shot.epochs"},
    {"parts", AM_PARAM_INT, offsetof(am_gradients_section, parts), "8", 1, 65536, NULL,
     "parts of the samples of a task that ranks can share; changes the rounding"},
    {0},
};

static const am_param plane_table[] = {
    {"grid", AM_PARAM_INT, offsetof(am_plane_section, grid), "15", 2, 1000, NULL,
     "points of the grid on a side"},
    {"margin", AM_PARAM_REAL, offsetof(am_plane_section, margin), "0.3", 0, 100, NULL,
     "what the grid has around the models, as a share of their extent"},
    {0},
};

static const am_param stats_table[] = {
    {"fisher", AM_PARAM_CHOICE, offsetof(am_stats_section, fisher), "empirical", 0, 0,
     "empirical|exact|sampled",
     "labels of the likelihood: of the samples, all by their probability, one drawn by it"},
    {"samples", AM_PARAM_INT, offsetof(am_stats_section, samples), "0", 0, 1e12, NULL,
     "training samples of each task at most, the first ones; 0: all"},
    {"batch", AM_PARAM_INT, offsetof(am_stats_section, batch), "512", 1, 1 << 24, NULL,
     "samples between two safe points; fixes the rounding"},
    {"micro_batches", AM_PARAM_INT, offsetof(am_stats_section, micro_batches), "8", 1, 1 << 20,
     NULL, "parts of a batch that ranks share; fixes the rounding"},
    {0},
};

int64_t am_train_recipe_gradient_epochs(const am_train_recipe *recipe)
{
    const am_comparison *one_shot = &recipe->one_shot;
    return recipe->gradients.epochs > 0 ? recipe->gradients.epochs
                                        : one_shot->epochs[one_shot->n_epochs - 1];
}

/* ---- statistics of models ---- */

static void need_stats(const am_train_merge *merges, int n, bool *fisher, bool *grams)
{
    for (int i = 0; i < n; i++) {
        *fisher = *fisher || merges[i].method->needs_aux;
        *grams = *grams || merges[i].method->needs_gram;
    }
}

bool am_merges_need_stats(const am_train_merge *merges, int n)
{
    bool fisher = false, grams = false;
    need_stats(merges, n, &fisher, &grams);
    return fisher || grams;
}

bool am_train_recipe_needs_stats(const am_train_recipe *recipe)
{
    return recipe->stats.what.fisher != AM_FISHER_NONE || recipe->stats.what.with_grams;
}

static int read_stats(const am_node *root, am_train_recipe *out)
{
    const am_node *node = am_node_find(root, "stats");
    am_stats_section *keys = &out->statistics;
    bool fisher = false, grams = false;
    int rc = am_recipe_bind(node, stats_table, NULL, "stats", keys);
    keys->is_given = node != NULL;
    need_stats(out->one_shot.method, out->one_shot.n_methods, &fisher, &grams);
    need_stats(out->iterate.method, out->iterate.n_methods, &fisher, &grams);
    out->stats = (am_statistics_options){
        .what = {.fisher = fisher ? (am_stats_fisher)keys->fisher : AM_FISHER_NONE,
                 .with_grams = grams,
                 .seed = (uint64_t)out->seed},
        .batch = keys->batch,
        .micro_batches = keys->micro_batches,
    };
    out->stats_split = AM_TRAIN;
    if (rc == AM_OK && keys->micro_batches > keys->batch) {
        rc = am_node_fail(node,
                          "stats.micro_batches: %lld are more than the samples of a batch, %lld",
                          (long long)keys->micro_batches, (long long)keys->batch);
    }
    return rc;
}

int am_train_measures_read(const am_node *root, am_train_recipe *out)
{
    const am_node *gradients = am_node_find(root, "gradients"),
                  *plane = am_node_find(root, "plane");
    int rc = AM_OK;
    out->gradients.is_given = gradients != NULL;
    out->plane.is_given = plane != NULL;
    if (gradients != NULL) {
        rc = am_recipe_bind(gradients, gradients_table, NULL, "gradients", &out->gradients);
    }
    if (plane != NULL) {
        AM_KEEP(am_recipe_bind(plane, plane_table, NULL, "plane", &out->plane));
    }
    if (rc == AM_OK && gradients != NULL && (out->model.lora.r > 0 || out->model.linearised)) {
        rc = am_node_fail(gradients,
                          "gradients are measured of full weights as they are: leave out %s",
                          out->model.linearised ? "model.linearised" : "model.lora");
    }
    AM_KEEP(read_stats(root, out));
    return rc;
}

void am_train_measures_print(const am_train_recipe *recipe, am_json *json)
{
    if (recipe->gradients.is_given) {
        am_json_object(json, "gradients");
        am_param_print_json(gradients_table, &recipe->gradients, json);
        am_json_end_object(json);
    }
    if (recipe->plane.is_given) {
        am_json_object(json, "plane");
        am_param_print_json(plane_table, &recipe->plane, json);
        am_json_end_object(json);
    }
    if (recipe->statistics.is_given || am_train_recipe_needs_stats(recipe)) {
        am_json_object(json, "stats");
        am_param_print_json(stats_table, &recipe->statistics, json);
        am_json_end_object(json);
    }
}
