/* Iterative task arithmetic: see iterate.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/iterate/iterate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "jobs/training/suite/adapt.h"
#include "jobs/training/iterate/gradients.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/iterate/plane.h"
#include "jobs/training/suite/scores.h"
#include "mpi/agree.h"
#include "mpi/log.h"

static int test_base_all(am_iterate *it)
{
    am_table_choice how = {.phase = "base", .alpha = NAN, .epochs = 0, .round = -1};
    int rc = am_iterate_validate_all(it, "base", it->base, &how);
    AM_KEEP(am_iterate_test_all(it, "base", "base", it->base, how));
    return rc;
}

int am_iterate_open_all(MPI_Comm comm, const am_train_recipe *recipe, am_iterate *it)
{
    int rc = AM_OK;
    *it = (am_iterate){.recipe = recipe};
    it->suite = (am_suite){.comm = MPI_COMM_NULL, .group = MPI_COMM_NULL};
    AM_TRY(am_suite_open_all(comm, recipe->folder, (const char *const *)recipe->task,
                             recipe->n_tasks, recipe->limit, recipe->room, &recipe->model.net,
                             recipe->dtype, &it->suite));
    it->suite.divergence = recipe->divergence;
    it->table.suite = &it->suite;
    it->table.by_loss = am_train_recipe_by_loss(recipe, am_suite_is_text(&it->suite));
    rc = am_iterate_allocate(it);
    AM_KEEP(am_adapt_open(&it->suite, &recipe->model.lora));
    AM_AGREE(comm);
    AM_TRY(am_model_pool_create_all(&it->suite, am_train_recipe_by_rows(recipe), &it->pool));
    am_info("%d task%s in %d group%s, trunk of %lld parameters", it->suite.n,
            it->suite.n == 1 ? "" : "s", it->suite.n_groups, it->suite.n_groups == 1 ? "" : "s",
            (long long)it->suite.trunk.n);
    return AM_OK;
cleanup:
    am_iterate_close_all(it);
    return rc;
}

/* Validation samples in two halves, if the rounds train on one of them. */
static int divide_validation(am_iterate *it)
{
    for (int i = 0; i < it->suite.n && it->recipe->on_validation; i++) {
        const int64_t n = am_dataset_samples(it->suite.data[i], AM_VALIDATION).n;
        if (n < 2) {
            return am_fail(AM_E_DATA,
                           "task %s has %lld validation samples: iterate.split: validation needs "
                           "two, one to train on and one to choose by",
                           am_suite_task(&it->suite, i), (long long)n);
        }
    }
    it->suite.halves_validation = it->recipe->on_validation;
    return AM_OK;
}

int am_iterate_run_all(am_iterate *it, const am_run_folder *folder, double save_every)
{
    int rc = AM_OK;
    AM_TRY(divide_validation(it)); /* the same on all ranks */
    AM_TRY(am_iterate_prepare_all(it, folder, save_every));
    AM_TRY(test_base_all(it));
    AM_TRY(am_iterate_one_shot_all(it));
    AM_TRY(am_iterate_runs_all(it));
    if (it->recipe->run_joint) {
        AM_TRY(am_iterate_joint_all(it));
    }
    AM_TRY(am_saver_end_all(&it->saver, it->suite.comm));
    AM_TRY(am_iterate_gradients_all(it));
    AM_TRY(am_iterate_plane_all(it));
cleanup:
    return rc;
}

char *am_iterate_text(const am_iterate *it)
{
    char *table = am_table_text(&it->table), *text = NULL;
    size_t bytes = 0;
    if (table == NULL) {
        return NULL;
    }
    FILE *out = open_memstream(&text, &bytes);
    if (out != NULL) {
        fputs(table, out);
        am_gradients_write(it, out);
        am_plane_write(it, out);
    }
    if (out == NULL || fclose(out) != 0) {
        free(text);
        text = NULL;
        am_fail(AM_E_NOMEM, "out of memory for the table");
    }
    free(table);
    return text;
}

/* What a comparison subtracts, the larger the better. */
static double gain(const am_iterate *it, const am_table_row *row)
{
    return it->table.by_loss ? -am_scores_bits(row->scores.loss) : row->scores.accuracy;
}

static void json_individual(const am_iterate *it, am_json *json)
{
    am_json_array(json, "individual_validation");
    for (int i = 0; i < it->n_individual; i++) {
        am_json_object(json, NULL);
        am_json_int(json, "epochs", it->individual[i].epochs);
        am_json_real(json, "validation_accuracy", it->individual[i].validation);
        am_json_real(json, "validation_loss_nats", it->individual[i].validation_loss);
        am_json_end_object(json);
    }
    am_json_end_array(json);
}

void am_iterate_json(const am_iterate *it, am_json *json)
{
    const bool by_loss = it->table.by_loss;
    if (it->recipe->experiment != NULL) {
        am_json_string(json, "experiment", it->recipe->experiment);
    }
    am_table_json(&it->table, json);
    json_individual(it, json);
    am_runs_json(it, json);
    am_gradients_json(it, json);
    am_plane_json(it, json);
    const am_table_row *one_shot = am_table_find(&it->table, "one_shot");
    const am_table_row *iterative = am_table_find(&it->table, "iterative");
    const am_table_row *joint = am_table_find(&it->table, "joint");
    if (one_shot && iterative) {
        am_json_real(json, by_loss ? "gain_over_one_shot_bits" : "gain_over_one_shot",
                     gain(it, iterative) - gain(it, one_shot));
    }
    if (joint && iterative) {
        am_json_real(json, by_loss ? "above_joint_bits" : "below_joint",
                     gain(it, joint) - gain(it, iterative));
    }
    if (one_shot && iterative && joint) {
        am_json_real(json, "gap_closed",
                     (gain(it, iterative) - gain(it, one_shot)) /
                         (gain(it, joint) - gain(it, one_shot)));
    }
}
