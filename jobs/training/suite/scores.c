/* Scores of a trunk: see scores.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/suite/scores.h"

#include <math.h>
#include <stdlib.h>
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/bigcount.h"

double am_scores_bits(double nats)
{
    return nats / log(2.0);
}

double am_scores_accuracy(const am_eval_result *task)
{
    return task->n > 0 ? (double)task->correct / (double)task->n : 0.0;
}

void am_scores_free(am_scores *scores)
{
    for (int i = 0; scores->task != NULL && i < scores->n; i++) {
        free(scores->task[i].of_class);
    }
    free(scores->task);
    *scores = (am_scores){0};
}

int am_scores_new_all(const am_suite *suite, am_scores *out)
{
    *out = (am_scores){.n = suite->n};
    out->task = am_new(suite->n, sizeof *out->task, "scores");
    int rc = out->task == NULL ? AM_E_NOMEM : AM_OK;
    for (int i = 0; rc == AM_OK && i < suite->n; i++) {
        const int64_t classes = am_dataset_classes(suite->data[i]);
        out->task[i].of_class = am_new(2 * classes, sizeof *out->task[i].of_class, "scores");
        rc = out->task[i].of_class == NULL ? AM_E_NOMEM : AM_OK;
    }
    return am_agree_all(suite->comm, rc);
}

void am_scores_mean(am_scores *scores)
{
    for (int i = 0; i < scores->n; i++) {
        scores->accuracy += am_scores_accuracy(&scores->task[i]);
        scores->loss += scores->task[i].loss;
    }
    scores->accuracy /= scores->n;
    scores->loss /= scores->n;
}

int am_suite_eval_all(const am_suite *suite, const void *trunk, am_split split, am_scores *out)
{
    int rc = AM_OK;
    AM_TRY(am_scores_new_all(suite, out));
    for (int i = 0; i < suite->n; i++) {
        am_samples samples = am_suite_samples(suite, i, split);
        AM_TRY(suite->ops->eval_all(suite->comm, &suite->net, trunk, suite->head_params[i],
                                    am_dataset_classes(suite->data[i]), &samples, &out->task[i]));
    }
    am_scores_mean(out);
cleanup:
    if (rc != AM_OK) {
        am_scores_free(out);
    }
    return rc;
}

int am_suite_eval_own_all(const am_suite *suite, void *const *trunks, am_split split,
                          am_scores *out)
{
    int rc = AM_OK;
    AM_TRY(am_scores_new_all(suite, out));
    for (int i = 0; i < suite->n; i++) {
        if (suite->owner[i] == suite->my_group) {
            am_samples samples = am_suite_samples(suite, i, split);
            AM_KEEP(suite->ops->eval_all(suite->group, &suite->net, trunks[i],
                                         suite->head_params[i], am_dataset_classes(suite->data[i]),
                                         &samples, &out->task[i]));
        }
    }
    AM_AGREE(suite->comm);
    for (int i = 0; i < suite->n; i++) {
        int64_t *of_class = out->task[i].of_class;
        const int leader = am_suite_leader(suite, i);
        AM_TRY(am_bcast_all(suite->comm, leader, &out->task[i], sizeof out->task[i]));
        out->task[i].of_class = of_class;
        AM_TRY(am_bcast_all(suite->comm, leader, of_class,
                            2 * am_dataset_classes(suite->data[i]) * (int64_t)sizeof *of_class));
    }
    am_scores_mean(out);
cleanup:
    if (rc != AM_OK) {
        am_scores_free(out);
    }
    return rc;
}

/* ---- as JSON ---- */

static void json_accuracies(const am_scores *scores, am_json *json)
{
    am_json_array(json, "task_accuracy");
    for (int i = 0; i < scores->n; i++) {
        am_json_real(json, NULL, am_scores_accuracy(&scores->task[i]));
    }
    am_json_end_array(json);
}

/* Mean cross-entropy of every task in nats, in bits (of text: bits per byte), and as perplexity. */
static void json_losses(const am_scores *scores, am_json *json)
{
    static const char *const key[] = {"task_loss_nats", "task_loss_bits", "task_perplexity"};
    for (int k = 0; k < 3; k++) {
        am_json_array(json, key[k]);
        for (int i = 0; i < scores->n; i++) {
            const double loss = scores->task[i].loss;
            am_json_real(json, NULL, k == 0 ? loss : k == 1 ? am_scores_bits(loss) : exp(loss));
        }
        am_json_end_array(json);
    }
}

/* Share of the labels of each class that are classified right, null without labels; [] for text. */
static void json_classes(const am_dataset *data, const am_eval_result *task, am_json *json)
{
    const int64_t classes = am_dataset_is_text(data) ? 0 : am_dataset_classes(data);
    am_json_array(json, NULL);
    for (int64_t k = 0; k < classes; k++) {
        const int64_t *count = &task->of_class[2 * k];
        am_json_real(json, NULL, count[0] > 0 ? (double)count[1] / (double)count[0] : NAN);
    }
    am_json_end_array(json);
}

static void json_qualities(const am_suite *suite, const am_scores *scores, am_json *json)
{
    static const char *const key[] = {"task_top5_accuracy", "task_balanced_accuracy",
                                      "task_calibration_error"};
    for (int q = 0; q < 3; q++) {
        am_json_array(json, key[q]);
        for (int i = 0; i < scores->n; i++) {
            const am_eval_result *task = &scores->task[i];
            const double top5 = task->n > 0 ? (double)task->top5 / (double)task->n : 0.0;
            am_json_real(json, NULL, q == 0 ? top5 : q == 1 ? task->balanced : task->calibration);
        }
        am_json_end_array(json);
    }
    am_json_array(json, "task_class_accuracy");
    for (int i = 0; i < scores->n; i++) {
        json_classes(suite->data[i], &scores->task[i], json);
    }
    am_json_end_array(json);
}

void am_scores_json(const am_suite *suite, const am_scores *scores, am_json *json)
{
    json_accuracies(scores, json);
    json_losses(scores, json);
    json_qualities(suite, scores, json);
}
