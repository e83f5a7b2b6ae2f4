/* Ranks and memory of a job. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/submit/size.h"

#include "jobs/merge/memory.h"
#include "jobs/training/iterate/iterate.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/world.h"

enum { MIB = 1 << 20, ROOM = 64 * MIB }; /* shared memory of the transport, the launcher's share */

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t whole_mib(int64_t bytes)
{
    return (bytes + MIB - 1) / MIB * MIB;
}

/* ---- merge ---- */

/* The fewest ranks that do, or from which on more of them read no less. */
static int fit(const am_merge_plan *plan, const am_size_limits *limits, int64_t budget,
               const am_process *process, int64_t *ranks, am_merge_need *need)
{
    int64_t last = INT64_MAX;
    int rc = 0;
    for (*ranks = limits->ranks > 0 ? limits->ranks : 1;; *ranks *= 2) {
        rc = am_merge_fit(plan, (int)*ranks, budget, 0, process, need);
        if (rc == 0 && need->read == last) {
            *ranks /= 2;
            return am_merge_fit(plan, (int)*ranks, budget, 0, process, need);
        }
        const bool is_enough = rc == 0 && need->read <= limits->site->bytes_per_rank;
        if (is_enough || limits->ranks > 0 || *ranks * 2 > limits->site->max_ranks) {
            return rc;
        }
        if (rc != 0) { /* more ranks have shorter slices */
            am_error_clear();
        }
        last = rc == 0 ? need->read : last;
    }
}

int am_size_merge_all(const char *recipe, char *const *set, int n_set, const am_size_limits *limits,
                      am_job_size *size)
{
    const int64_t budget = limits->memory > 0 ? limits->memory : limits->site->memory;
    const am_merge_options options = {.memory = budget, .n_set = n_set, .set = set};
    am_merge_plan plan = {0};
    am_merge_need need = {0};
    am_process process = {0};
    int64_t ranks = 0;
    int rc = 0;
    am_memory_keep_no_holes();
    AM_TRY(am_merge_plan_all(am_world(), recipe, &options, &plan));
    AM_TRY(am_memory_process_all(am_world(), &process));
    rc = fit(&plan, limits, budget, &process, &ranks, &need);
    AM_AGREE(am_world());
    /* More ranks make the process itself larger than it is here. */
    size->budget =
        most(size->budget, least(budget, whole_mib(need.peak + most(need.peak / 8, ROOM))));
    size->ranks = most(size->ranks, ranks);
    size->memory = size->budget + ROOM;
    am_info("merge by %s: %lld rank%s, on each at most %s of memory and %s read",
            plan.recipe.method->name, (long long)ranks, ranks == 1 ? "" : "s",
            am_format_bytes(need.peak), am_format_bytes(need.read));
cleanup:
    am_merge_plan_free(&plan);
    return rc;
}

/* ---- training ---- */

/* Samples that one rank carries through the net at once, at most. */
static int64_t samples_of(const am_iterate *it, const am_train_section *section)
{
    int64_t largest = 0;
    for (int i = 0; i < it->suite.n; i++) {
        largest = most(largest, am_dataset_samples(it->suite.data[i], AM_TRAIN).n);
    }
    const int64_t batch = section->batch > 0 ? least(section->batch, largest) : largest;
    return (batch + section->micro_batches - 1) / section->micro_batches;
}

/* Beyond what is open: gradients (a leaf for every part of a batch and the levels of their sum),
 * two states of the optimiser, models and slices of a merge, activations forth and back. */
static int added_by_training(const am_iterate *it, int64_t *bytes)
{
    const am_train_recipe *r = it->recipe;
    const am_train_section *sections[] = {&r->base, &r->heads, &r->finetune, &r->joint};
    const int64_t real = am_suite_real_bytes(&it->suite), trunk = it->suite.trunk.n * real;
    int64_t classes = 1, added = 0;
    for (int i = 0; i < it->suite.n; i++) {
        classes = most(classes, am_dataset_classes(it->suite.data[i]));
    }
    for (size_t s = 0; s < sizeof sections / sizeof sections[0]; s++) {
        const int64_t leaves = sections[s]->micro_batches;
        int64_t activations = 0;
        const int rc = it->suite.ops->activation_bytes(&it->suite.net, samples_of(it, sections[s]),
                                                       classes, true, &activations);
        if (rc != 0) {
            return rc;
        }
        added = most(added, trunk * (leaves + 4) + activations);
    }
    *bytes = added + trunk * (2 * r->n_tasks + 4);
    return 0;
}

int am_size_training_all(const am_train_recipe *recipe, int64_t groups,
                         const am_size_limits *limits, am_job_size *size)
{
    am_iterate it = {0};
    bool is_open = false;
    am_process process = {0};
    int64_t need = 0, added = 0;
    int rc = 0;
    AM_TRY(am_iterate_open_all(am_world(), recipe, &it));
    is_open = true;
    AM_TRY(am_memory_process_all(am_world(), &process));
    rc = added_by_training(&it, &added);
    AM_AGREE(am_world());
    need = whole_mib(process.peak + added + ROOM);
    if (limits->memory > 0 && limits->memory < need) {
        am_warn("--memory %s may be too little: data and models take about %s on every rank",
                am_format_bytes(limits->memory), am_format_bytes(need));
    }
    size->ranks = limits->ranks > 0
                      ? limits->ranks
                      : least(groups * recipe->finetune.micro_batches, limits->site->max_ranks);
    size->memory = most(size->memory, limits->memory > 0 ? limits->memory : need);
    am_info("training: %lld rank%s, on each about %s of memory (an estimate from data and model; "
            "--memory SIZE overrides it)",
            (long long)size->ranks, size->ranks == 1 ? "" : "s", am_format_bytes(need));
cleanup:
    if (is_open) {
        am_iterate_close_all(&it);
    }
    return rc;
}
