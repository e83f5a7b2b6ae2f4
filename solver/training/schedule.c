/* Which samples make up which step. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/schedule.h"

#include "mpi/error.h"
#include "mpi/partition.h"

/* Samples of a full batch of task t. */
static int64_t am_schedule_batch(const am_schedule *s, int t)
{
    const int64_t n = s->tasks[t].train.n, batch = s->options->batch;
    return batch == 0 || batch > n ? n : batch;
}

static int64_t am_schedule_batches(const am_schedule *s, int t)
{
    const int64_t n = s->tasks[t].train.n, batch = am_schedule_batch(s, t);
    return n / batch + (n % batch != 0);
}

am_schedule am_schedule_make(const am_task *tasks, int n_tasks, const am_train_options *options)
{
    am_schedule s = {.tasks = tasks, .n_tasks = n_tasks, .options = options, .parts = 1};
    const bool is_sum = options->sum_tasks;
    s.parts = is_sum ? n_tasks : 1;
    for (int t = 0; t < n_tasks; t++) {
        const int64_t batches = am_schedule_batches(&s, t);
        if (!is_sum) {
            s.steps += batches;
        } else if (batches > s.steps) {
            s.steps = batches;
        }
    }
    return s;
}

/* Batch `batch` of the pass `pass` over task t. */
static am_part am_schedule_cut(const am_schedule *s, int t, int64_t pass, int64_t batch)
{
    const int64_t n = s->tasks[t].train.n, rows = am_schedule_batch(s, t), lo = batch * rows;
    return (am_part){.task = t, .pass = pass, .lo = lo, .hi = n - lo < rows ? n : lo + rows};
}

am_part am_schedule_part(const am_schedule *s, int64_t epoch, int64_t step, int index)
{
    if (s->options->sum_tasks) {
        const int64_t batches = am_schedule_batches(s, index), k = epoch * s->steps + step;
        return am_schedule_cut(s, index, k / batches, k % batches);
    }
    int64_t batch = step;
    if (s->n_tasks > 1) {
        const am_train_options *o = s->options;
        const am_rng rng = am_rng_make(o->seed, o->purpose, o->round, epoch, "");
        batch = am_rng_permute(&rng, s->steps, step);
    }
    for (int t = 0; t < s->n_tasks; t++) {
        const int64_t batches = am_schedule_batches(s, t);
        if (batch < batches) {
            return am_schedule_cut(s, t, epoch, batch);
        }
        batch -= batches;
    }
    AM_ASSERT(!"a step beyond the epoch");
    return (am_part){0};
}

int64_t am_schedule_leaf(const am_schedule *s, const am_part *part, int64_t leaf, int64_t *index)
{
    const am_train_options *o = s->options;
    const am_task *task = &s->tasks[part->task];
    const am_rng rng = am_rng_make(o->seed, o->purpose, o->round, part->pass, task->name);
    const bool is_whole = part->hi - part->lo == task->train.n;
    int64_t lo, hi;
    am_part_range(part->hi - part->lo, o->micro_batches, leaf, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const int64_t at = part->lo + i;
        index[i - lo] = is_whole ? at : am_rng_permute(&rng, task->train.n, at);
    }
    return hi - lo;
}

int64_t am_schedule_rows(const am_schedule *s)
{
    int64_t largest = 0;
    for (int t = 0; t < s->n_tasks; t++) {
        const int64_t batch = am_schedule_batch(s, t);
        largest = batch > largest ? batch : largest;
    }
    const int64_t leaves = s->options->micro_batches;
    return largest / leaves + (largest % leaves != 0);
}
