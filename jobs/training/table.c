/* Result table of a training job: see table.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"

int am_table_add(am_table *table, const char *key, const char *name, am_table_choice choice,
                 am_scores *scores)
{
    if (table->n == AM_TABLE_ROWS) {
        return am_fail(AM_E_RECIPE, "the comparison has more than %d rows", AM_TABLE_ROWS);
    }
    am_table_row *row = &table->row[table->n++];
    snprintf(row->key, sizeof row->key, "%s", key);
    snprintf(row->name, sizeof row->name, "%s", name);
    row->choice = choice;
    row->scores = *scores;
    *scores = (am_scores){0};
    return AM_OK;
}

const am_table_row *am_table_find(const am_table *table, const char *key)
{
    for (int i = 0; i < table->n; i++) {
        if (strcmp(table->row[i].key, key) == 0) {
            return &table->row[i];
        }
    }
    return NULL;
}

void am_table_free(am_table *table)
{
    for (int i = 0; i < table->n; i++) {
        am_scores_free(&table->row[i].scores);
    }
    *table = (am_table){0};
}

double am_table_bits(double nats)
{
    return nats / log(2.0);
}

static double accuracy(const am_eval_result *task)
{
    return task->n > 0 ? (double)task->correct / (double)task->n : 0.0;
}

static void write_header(const am_table *table, FILE *out)
{
    fprintf(out, "%-28s %6s %6s", table->by_loss ? "test loss, bits" : "test accuracy", "alpha",
            "epochs");
    for (int i = 0; i < table->suite->n; i++) {
        fprintf(out, " %8.8s", am_suite_task(table->suite, i));
    }
    fprintf(out, " %8s\n", "mean");
}

static void write_row(const am_table_row *row, bool by_loss, FILE *out)
{
    const am_scores *scores = &row->scores;
    fprintf(out, "%-28s", row->name);
    if (isnan(row->choice.alpha)) {
        fprintf(out, " %6s", "-");
    } else {
        fprintf(out, " %6.3g", row->choice.alpha);
    }
    if (row->choice.epochs < 0) {
        fprintf(out, " %6s", "-");
    } else {
        fprintf(out, " %6lld", (long long)row->choice.epochs);
    }
    for (int i = 0; i < scores->n; i++) {
        const am_eval_result *task = &scores->task[i];
        fprintf(out, " %8.4f", by_loss ? am_table_bits(task->loss) : accuracy(task));
    }
    fprintf(out, " %8.4f\n", by_loss ? am_table_bits(scores->loss) : scores->accuracy);
}

char *am_table_text(const am_table *table)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        am_fail(AM_E_NOMEM, "out of memory for the result table");
        return NULL;
    }
    write_header(table, out);
    for (int i = 0; i < table->n; i++) {
        write_row(&table->row[i], table->by_loss, out);
    }
    if (fclose(out) != 0) {
        free(text);
        am_fail(AM_E_NOMEM, "out of memory for the result table");
        return NULL;
    }
    return text;
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

static void json_row(const am_suite *suite, const am_table_row *row, am_json *json)
{
    am_json_object(json, NULL);
    am_json_string(json, "key", row->key);
    am_json_string(json, "name", row->name);
    am_json_real(json, "alpha", row->choice.alpha);
    if (row->choice.epochs >= 0) {
        am_json_int(json, "epochs", row->choice.epochs);
    }
    if (row->choice.round >= 0) {
        am_json_int(json, "round", row->choice.round);
    }
    am_json_real(json, "validation_accuracy", row->choice.validation);
    am_json_real(json, "validation_loss_nats", row->choice.validation_loss);
    am_json_real(json, "test_accuracy", row->scores.accuracy);
    am_json_real(json, "test_loss_nats", row->scores.loss);
    am_json_real(json, "test_loss_bits", am_table_bits(row->scores.loss));
    am_json_array(json, "task_accuracy");
    for (int i = 0; i < row->scores.n; i++) {
        am_json_real(json, NULL, accuracy(&row->scores.task[i]));
    }
    am_json_end_array(json);
    json_losses(&row->scores, json);
    json_qualities(suite, &row->scores, json);
    am_json_end_object(json);
}

void am_table_json(const am_table *table, am_json *json)
{
    am_json_array(json, "tasks");
    for (int i = 0; i < table->suite->n; i++) {
        am_json_string(json, NULL, am_suite_task(table->suite, i));
    }
    am_json_end_array(json);
    am_json_array(json, "rows");
    for (int i = 0; i < table->n; i++) {
        json_row(table->suite, &table->row[i], json);
    }
    am_json_end_array(json);
}
