/* What the phases of iterate share. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/iterate/model_stats.h"
#include "jobs/training/iterate/parts.h"
#include "jobs/training/iterate/plane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/training/suite/report.h"
#include "jobs/training/suite/weights.h"
#include "jobs/training/suite/scores.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/rng.h"
#include "solver/analysis/gram.h"

static size_t trunk_bytes(const am_iterate *it)
{
    return (size_t)(it->suite.trunk.n * am_suite_real_bytes(&it->suite));
}

void am_iterate_copy(const am_iterate *it, void *to, const void *from)
{
    memcpy(to, from, trunk_bytes(it));
}

bool am_iterate_is_mine(const am_iterate *it, int task)
{
    return it->suite.owner[task] == it->suite.my_group;
}

/* Every own task starts from `from`. */
void am_iterate_start_tasks(am_iterate *it, const void *from)
{
    for (int i = 0; i < it->suite.n; i++) {
        if (am_iterate_is_mine(it, i)) {
            am_iterate_copy(it, it->trunk[i], from);
        }
    }
}

double am_choice_score(const am_iterate *it, const am_table_choice *how)
{
    return it->table.by_loss ? -how->validation_loss : how->validation;
}

const char *am_choice_text(const am_iterate *it, const am_table_choice *how, char *text)
{
    if (it->table.by_loss) {
        snprintf(text, AM_CHOICE_TEXT, "%.4f bits", am_scores_bits(how->validation_loss));
    } else {
        snprintf(text, AM_CHOICE_TEXT, "%.4f", how->validation);
    }
    return text;
}

/* Keep `trunk` if it beats the choice on validation data; the earlier one wins ties. */
void am_choice_offer(const am_iterate *it, am_choice *best, const void *trunk, am_table_choice how)
{
    if (!best->is_set || am_choice_score(it, &how) > am_choice_score(it, &best->how)) {
        am_iterate_copy(it, best->trunk, trunk);
        best->how = how;
        best->is_set = true;
    }
}

int am_choice_new(const am_iterate *it, am_choice *out)
{
    *out = (am_choice){.trunk = am_suite_trunk_new(&it->suite)};
    return out->trunk == NULL ? AM_E_NOMEM : AM_OK;
}

/* ---- set up ---- */

int am_iterate_allocate(am_iterate *it)
{
    am_suite *suite = &it->suite;
    it->base = am_suite_trunk_new(suite);
    it->merged = am_suite_trunk_new(suite);
    it->final = am_suite_trunk_new(suite);
    it->trunk = am_new(suite->n, sizeof *it->trunk, "trunks");
    it->best = am_new(suite->n, sizeof *it->best, "trunks");
    if (!it->base || !it->merged || !it->final || !it->trunk || !it->best) {
        return AM_E_NOMEM;
    }
    for (int i = 0; i < suite->n; i++) {
        if (am_iterate_is_mine(it, i)) {
            it->trunk[i] = am_suite_trunk_new(suite);
            it->best[i] = am_suite_trunk_new(suite);
            if (!it->trunk[i] || !it->best[i]) {
                return AM_E_NOMEM;
            }
        }
    }
    return AM_OK;
}

void am_iterate_close_all(am_iterate *it)
{
    for (int i = 0; i < it->suite.n; i++) {
        if (it->trunk) {
            free(it->trunk[i]);
        }
        if (it->best) {
            free(it->best[i]);
        }
    }
    free(it->trunk);
    free(it->best);
    free(it->base);
    free(it->merged);
    free(it->final);
    am_model_pool_free(&it->pool);
    am_iterate_stats_free(it);
    am_runs_free(it);
    free(it->gradient);
    am_plane_free(it);
    am_table_free(&it->table);
    am_saver_free(&it->saver);
    am_suite_close_all(&it->suite);
}

int am_iterate_save_all(const am_iterate *it, const char *name, const void *trunk)
{
    char path[AM_RUN_PATH];
    int rc = am_run_folder_file(it->folder, path, "%s", name);
    am_ckpt_options options = {.overwrite = true, .recipe = it->recipe->text};
    AM_AGREE(it->suite.comm);
    AM_TRY(am_suite_save_trunk_all(&it->suite, path, trunk, &options));
cleanup:
    return rc;
}

/* A step that an earlier run of the same recipe finished: read its model. */
int am_iterate_read_all(const am_iterate *it, const char *name, void *trunk, bool *is_done)
{
    char path[AM_RUN_PATH];
    int rc = AM_OK;
    AM_TRY(am_run_folder_has_sound_all(it->suite.comm, it->folder, name, is_done));
    if (*is_done) {
        AM_TRY(am_run_folder_file(it->folder, path, "%s", name)); /* the same on all ranks */
        AM_TRY(am_suite_load_trunk_all(&it->suite, path, trunk));
    }
cleanup:
    return rc;
}

int am_iterate_stopped_all(am_iterate *it, int code)
{
    int rc = code;
    if (code == AM_E_STOPPED) { /* the same on all ranks */
        const int saved = am_saver_stop_all(&it->saver, it->suite.group);
        rc = am_agree_all(it->suite.comm, saved != AM_OK ? saved : code);
    }
    return rc;
}

/* ---- merging ---- */

int am_iterate_merge_all(am_iterate *it, const am_train_merge *merge, double alpha, int64_t round,
                         void *out)
{
    const uint64_t seed = (uint64_t)it->recipe->seed;
    double param[AM_METHOD_MAX_PARAMS];
    memcpy(param, merge->param, sizeof param);
    if (merge->lambda >= 0) {
        param[merge->lambda] = alpha;
    }
    const am_pool_merge how = {.method = merge->method,
                               .scope = merge->scope,
                               .semantics = merge->semantics,
                               .param = param,
                               .model_param = merge->param,
                               .aux = it->stats != NULL ? it->stats->fisher : NULL,
                               .gram = it->stats != NULL ? it->stats->gram : NULL,
                               .seed = round > 0 ? am_hash64(&round, sizeof round, seed) : seed};
    return am_model_pool_merge_all(it->pool, &how, out);
}

/* Write norms and cosines of the task vectors in the pool as one event. */
int am_iterate_vectors_all(am_iterate *it, const char *phase, double alpha, int64_t step,
                           double *energy)
{
    int n = it->suite.n, rc = AM_OK;
    am_json json = {0};
    double *gram = am_new((int64_t)n * n, sizeof *gram, "the Gram matrix");
    double *cosine = am_new((int64_t)n * n, sizeof *cosine, "the Gram matrix");
    double *norm = am_new(n, sizeof *norm, "the Gram matrix");
    rc = !gram || !cosine || !norm ? AM_E_NOMEM : AM_OK;
    AM_AGREE(it->suite.comm);
    AM_TRY(am_model_pool_gram_all(it->pool, NULL, gram));
    am_gram_cosines(gram, n, norm, cosine);
    for (int i = 0; energy != NULL && i < n; i++) {
        *energy = (i > 0 ? *energy : 0) + gram[i * n + i];
    }
    am_json_string(&json, "phase", phase);
    am_json_real(&json, "alpha", alpha);
    am_json_int(&json, "step", step);
    am_json_array(&json, "norms");
    for (int i = 0; i < n; i++) {
        am_json_real(&json, NULL, norm[i]);
    }
    am_json_end_array(&json);
    am_json_array(&json, "cosines");
    for (int i = 0; i < n; i++) {
        am_json_array(&json, NULL);
        for (int j = 0; j < n; j++) {
            am_json_real(&json, NULL, cosine[i * n + j]);
        }
        am_json_end_array(&json);
    }
    am_json_end_array(&json);
    am_event("task_vectors", &json);
cleanup:
    am_json_free(&json);
    free(gram);
    free(cosine);
    free(norm);
    return rc;
}

static void report_scores(const am_suite *suite, const char *phase, am_table_choice how,
                          const am_scores *scores)
{
    am_json json = {0};
    am_json_string(&json, "phase", phase);
    if (how.method != NULL) {
        am_json_string(&json, "method", how.method);
    }
    am_json_real(&json, "alpha", how.alpha);
    if (how.merge != NULL) {
        am_train_merge_searched(how.merge, how.variant, &json);
    }
    am_json_int(&json, "epochs", how.epochs);
    am_json_int(&json, "round", how.round);
    if (how.round >= 0) {
        am_json_int(&json, "round_epochs", how.round_epochs);
    }
    am_json_real(&json, "validation_accuracy", scores->accuracy);
    am_json_real(&json, "validation_loss_nats", scores->loss);
    am_scores_json(suite, scores, &json);
    am_event("validation", &json);
    am_json_free(&json);
}

void am_iterate_told(const am_iterate *it, const char *phase, am_table_choice *how,
                     const am_scores *scores)
{
    how->validation = scores->accuracy;
    how->validation_loss = scores->loss;
    report_scores(&it->suite, phase, *how, scores);
}

/* Validation accuracy and loss of one trunk on all tasks, into `how`. */
int am_iterate_validate_all(const am_iterate *it, const char *phase, const void *trunk,
                            am_table_choice *how)
{
    am_scores scores = {0};
    int rc = am_suite_eval_all(&it->suite, trunk, AM_VALIDATION, &scores);
    if (rc == AM_OK) {
        am_iterate_told(it, phase, how, &scores);
        am_scores_free(&scores);
    }
    return rc;
}

int am_iterate_test_point_all(const am_iterate *it, const void *trunk, am_point *out)
{
    am_scores scores = {0};
    const int rc = am_suite_eval_all(&it->suite, trunk, AM_TEST, &scores);
    if (rc == AM_OK) {
        out->test = scores.accuracy;
        out->test_loss = scores.loss;
        am_scores_free(&scores);
    }
    return rc;
}

/* Test accuracy of a chosen model: one more row of the table. */
int am_iterate_test_all(am_iterate *it, const char *key, const char *name, const void *trunk,
                        am_table_choice how)
{
    am_scores scores = {0};
    int rc = am_suite_eval_all(&it->suite, trunk, AM_TEST, &scores);
    AM_KEEP(am_table_add(&it->table, key, name, how, &scores));
    am_scores_free(&scores);
    return rc == AM_OK ? am_plane_keep_all(it, key, trunk, &how) : rc; /* agreed */
}
