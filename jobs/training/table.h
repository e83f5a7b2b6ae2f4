/* The result table of a training job: one row a model, one column a task, accuracies on test data.
 * Written as text for people and as JSON for programs. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_TABLE_H
#define AM_JOBS_TRAINING_TABLE_H

#include "jobs/training/suite/scores.h"
#include "mpi/jsonw.h"

enum { AM_TABLE_ROWS = 256, AM_TABLE_NAME = 80 };

/* How a row's model was chosen; fields that do not apply are negative or NaN. */
typedef struct am_table_choice {
    const struct am_train_merge *merge; /* of the recipe; NULL: nothing was searched but alpha */
    int variant;                        /* of it */
    const char *phase, *method;         /* static, or of the recipe; NULL: not told, no merge */
    int64_t round_epochs;               /* of rounds: epochs of each; else 0 */
    double alpha;
    int64_t epochs, round;
    double validation;      /* mean accuracy on validation data, 0..1 */
    double validation_loss; /* mean over the tasks of the loss on it, nats */
} am_table_choice;

typedef struct am_table_row {
    char name[AM_TABLE_NAME]; /* "one-shot merge, 5 epochs" */
    char key[AM_TABLE_NAME];  /* "one_shot_5" */
    am_table_choice choice;
    am_scores scores; /* owned; on test data */
} am_table_row;

typedef struct am_table {
    const am_suite *suite; /* borrowed: task names */
    bool by_loss;          /* the text shows bits (of text: bits per byte), not accuracies */
    int n;
    am_table_row row[AM_TABLE_ROWS];
} am_table;

/** Add a row; takes over scores (moved). Errors: AM_E_RECIPE when the table is full. */
int am_table_add(am_table *table, const char *key, const char *name, am_table_choice choice,
                 am_scores *scores);
/** Row called `key`, NULL if absent. */
const am_table_row *am_table_find(const am_table *table, const char *key);
void am_table_free(am_table *table);

/** The table as lines of text, owned by the caller (free). NULL with AM_E_NOMEM in the slot. */
char *am_table_text(const am_table *table);
/** Members "tasks" and "rows" of an object that is open in `json`. */
void am_table_json(const am_table *table, am_json *json);

#endif
