/* Which samples make up which step: pure functions of the recipe, no rank count, no memory of
 * earlier steps, so that any step of a run can be found directly.
 *
 *     epoch ──> steps ──> parts (one task each) ──> leaves (micro-batches) ──> sample indices
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_SCHEDULE_H
#define AM_SOLVER_TRAINING_SCHEDULE_H

#include "solver/training/train.h"

typedef struct am_schedule {
    const am_task *tasks; /* borrowed */
    int n_tasks;
    const am_train_options *options; /* borrowed */
    int64_t steps;                   /* a epoch */
    int parts;                       /* a step: n_tasks with sum_tasks, else 1 */
} am_schedule;

/* Positions [lo, hi) of one pass over one task. */
typedef struct am_part {
    int task;
    int64_t pass; /* passes over the task before this one in the whole run; keys the shuffle */
    int64_t lo, hi;
} am_part;

/** Steps of an epoch. One task: its batches in turn, the last one may be smaller. Several tasks:
 * all batches of all tasks, one a step, in shuffled order; with sum_tasks, one batch of every task
 * a step, as many as the largest task has (smaller tasks start over, shuffled anew). Pure. */
am_schedule am_schedule_make(const am_task *tasks, int n_tasks, const am_train_options *options);

/** Part `index` of step `step` of epoch `epoch`. Pure. */
am_part am_schedule_part(const am_schedule *schedule, int64_t epoch, int64_t step, int index);

/** Samples of leaf `leaf` (of options->micro_batches) of a part into index[], which holds
 * am_schedule_rows; returns how many: 0 for an empty leaf. A part that is its whole task is in file
 * order: the gradient of a full batch is the same in every epoch and round. Pure. */
int64_t am_schedule_leaf(const am_schedule *schedule, const am_part *part, int64_t leaf,
                         int64_t *index);

/** Samples of the largest leaf. Pure. */
int64_t am_schedule_rows(const am_schedule *schedule);

#endif
