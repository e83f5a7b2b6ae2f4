/* Result table of a training job: see table.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/training/recipe.h"
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
        fprintf(out, " %8.4f", by_loss ? am_scores_bits(task->loss) : am_scores_accuracy(task));
    }
    fprintf(out, " %8.4f", by_loss ? am_scores_bits(scores->loss) : scores->accuracy);
    if (row->choice.merge != NULL) {
        char text[AM_SEARCHED_TEXT];
        fputs(am_train_merge_searched_text(row->choice.merge, row->choice.variant, text), out);
    }
    (void)fputc('\n', out);
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

static void json_row(const am_suite *suite, const am_table_row *row, am_json *json)
{
    am_json_object(json, NULL);
    am_json_string(json, "key", row->key);
    am_json_string(json, "name", row->name);
    if (row->choice.phase != NULL) {
        am_json_string(json, "phase", row->choice.phase);
        am_json_string(json, "method", row->choice.method);
    }
    am_json_real(json, "alpha", row->choice.alpha);
    if (row->choice.merge != NULL) {
        am_train_merge_searched(row->choice.merge, row->choice.variant, json);
    }
    if (row->choice.epochs >= 0) {
        am_json_int(json, "epochs", row->choice.epochs);
    }
    if (row->choice.round >= 0) {
        am_json_int(json, "round", row->choice.round);
        am_json_int(json, "round_epochs", row->choice.round_epochs);
    }
    am_json_real(json, "validation_accuracy", row->choice.validation);
    am_json_real(json, "validation_loss_nats", row->choice.validation_loss);
    am_json_real(json, "test_accuracy", row->scores.accuracy);
    am_json_real(json, "test_loss_nats", row->scores.loss);
    am_json_real(json, "test_loss_bits", am_scores_bits(row->scores.loss));
    am_scores_json(suite, &row->scores, json);
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
