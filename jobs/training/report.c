/* Events of training: see report.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/report.h"

#include <math.h>
#include "jobs/training/adapt.h"
#include "jobs/training/table.h"
#include "mpi/log.h"

/* ---- scores ---- */

static void json_accuracies(const am_scores *scores, am_json *json)
{
    am_json_array(json, "task_accuracy");
    for (int i = 0; i < scores->n; i++) {
        am_json_real(json, NULL, am_table_accuracy(&scores->task[i]));
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
            am_json_real(json, NULL, k == 0 ? loss : k == 1 ? am_table_bits(loss) : exp(loss));
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

void am_report_scores(const am_suite *suite, const am_scores *scores, am_json *json)
{
    json_accuracies(scores, json);
    json_losses(scores, json);
    json_qualities(suite, scores, json);
}

/* ---- epochs ---- */

/* Squared norm of the updates of every tensor that moved; nothing for a frozen trunk. */
static void json_energy(const am_tensor_table *tensors, const am_exact *energy, am_json *json)
{
    am_exact sum = {0};
    for (int64_t k = 0; k < tensors->n; k++) {
        am_exact_merge(&sum, &energy[k]);
    }
    const double all = am_exact_round(&sum);
    if (all == 0) {
        return;
    }
    am_json_real(json, "update_energy", all);
    am_json_object(json, "tensor_update_energy");
    for (int64_t k = 0; k < tensors->n; k++) {
        const double own = am_exact_round(&energy[k]);
        if (own > 0) {
            am_json_real(json, tensors->t[k].name, own);
        }
    }
    am_json_end_object(json);
}

static void json_record(const am_suite *suite, const am_train_record *r, am_json *json)
{
    const double rate = (double)r->samples / r->seconds;
    am_json_int(json, "epoch", r->epoch);
    am_json_int(json, "steps", r->steps);
    am_json_int(json, "samples", r->samples);
    am_json_real(json, "loss_nats", r->loss);
    am_json_real(json, "gradient_norm_mean", am_exact_round(&r->norm_sum) / (double)r->steps);
    am_json_real(json, "gradient_norm_most", r->norm_most);
    am_json_real(json, "gradient_norm_last", r->norm_last);
    am_json_real(json, "train_seconds", r->seconds);
    am_json_real(json, "samples_per_second", rate);
    if (suite->net.takes_ids) {
        am_json_real(json, "tokens_per_second", rate * (double)suite->net.features);
    }
}

void am_report_epochs(const am_suite *suite, const am_train_options *options, const char *task,
                      const am_train_log *log)
{
    for (int64_t k = 0; k < log->n; k++) {
        am_json json = {0};
        am_json_string(&json, "phase", options->purpose);
        am_json_int(&json, "round", options->round);
        if (task != NULL) {
            am_json_string(&json, "task", task);
        }
        json_record(suite, &log->record[k], &json);
        json_energy(&am_adapt_net(suite)->trunk.tensors, am_train_log_energy(log, k), &json);
        am_event("epoch", &json);
        am_json_free(&json);
    }
}
