/* allmerge plan RECIPE: what a merge or a training job would take, from the headers of its inputs.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include "jobs/align/plan.h"
#include "jobs/command.h"
#include "jobs/merge/grid.h"
#include "jobs/merge/memory.h"
#include "jobs/stats/stats.h"
#include "jobs/theory/theory.h"
#include "jobs/training/job.h"
#include "jobs/training/fit.h"
#include "jobs/training/regmean/job.h"
#include "jobs/training/twin/job.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

typedef struct plan_options {
    int64_t ranks, memory, block_bytes;
    int job;
    char *task;
    bool json;
} plan_options;

enum { AUTO, MERGE, TRAIN, ITERATE, THEORY, STATS, TWIN, REGMEAN, ALIGN, PLEAS };
static const int64_t merge_memory = 256 << 20; /* bytes, as merge has it */
static const char jobs[] = "auto|merge|train|iterate|theory|stats|twin|regmean|align|pleas";
/* In that order. */
static const char *const job_names[] = {"auto",  "merge", "train",   "iterate", "theory",
                                        "stats", "twin",  "regmean", "align",   "pleas"};
static const am_train_job kinds[] = {
    [TRAIN] = AM_JOB_TRAIN,     [ITERATE] = AM_JOB_ITERATE, [THEORY] = AM_JOB_THEORY,
    [STATS] = AM_JOB_STATS,     [TWIN] = AM_JOB_TWIN,       [ALIGN] = AM_JOB_ALIGN,
    [REGMEAN] = AM_JOB_REGMEAN, [PLEAS] = AM_JOB_ALIGN};

#define AM_AT(member) offsetof(plan_options, member)
static const am_param options[] = {
    {"ranks", AM_PARAM_INT, AM_AT(ranks), "1", 1, 1 << 20, NULL, "ranks of the job"},
    {"memory", AM_PARAM_BYTES, AM_AT(memory), "0", 0, INT64_MAX, NULL,
     "what a rank may take; 0: 256 MiB of a merge, any of a training job"},
    {"block", AM_PARAM_BYTES, AM_AT(block_bytes), "0", 0, 1LL << 40, NULL,
     "batch, 8 bytes an element; 0: as --memory allows"},
    {"job", AM_PARAM_CHOICE, AM_AT(job), "auto", 0, 0, jobs,
     "what the recipe is for; auto: theory if it has that section, twin or regmean if that has "
     "models, iterate if it has data, else merge"},
    {"task", AM_PARAM_STRING, AM_AT(task), "", 0, 0, NULL,
     "of train, stats, align and pleas: the only task to use"},
    {"json", AM_PARAM_BOOL, AM_AT(json), "false", 0, 0, NULL, "one line of JSON on stdout"},
    {0}};
#undef AM_AT

static int print_json(const plan_options *o, const am_merge_plan *plan, const am_merge_need *need)
{
    const am_layout *on = &plan->recipe.grid.layout;
    int64_t on_grid = 0;
    char *grid = NULL;
    const int rc = am_merge_grid_json(plan, &on_grid, &grid);
    free(grid);
    if (rc != 0) {
        return rc;
    }
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "method", plan->recipe.method->name);
    am_json_int(&j, "ranks", o->ranks);
    am_json_int(&j, "peak_bytes", need->peak);
    am_json_int(&j, "process_bytes", need->process.now);
    am_json_int(&j, "process_peak_bytes", need->process.peak);
    am_json_int(&j, "read_bytes", need->read);
    am_json_int(&j, "written_bytes", need->written);
    am_json_int(&j, "total_read_bytes", need->total_read);
    am_json_int(&j, "total_written_bytes", need->total_written);
    am_json_int(&j, "visits", need->visits);
    am_json_int(&j, "block", need->block);
    if (plan->recipe.has_grid) {
        am_json_int(&j, "grid_ranks", on_grid > 0 ? (int64_t)on->rows * on->cols : 0);
        am_json_int(&j, "grid_tensors", on_grid);
    }
    am_json_end_object(&j);
    return am_result_end(&j);
}

static int report(const plan_options *o, const am_merge_plan *plan, const am_merge_need *need)
{
    const double mib = 1 << 20;
    if (o->json) {
        return print_json(o, plan, need);
    }
    am_info("%s on %" PRId64 " ranks, at most on any rank: memory %.1f MiB, read %.1f MiB, written "
            "%.1f MiB; %d visits of the data, batches of %" PRId64 " elements",
            plan->recipe.method->name, o->ranks, (double)need->peak / mib, (double)need->read / mib,
            (double)need->written / mib, need->visits, need->block);
    return 0;
}

static int plan_merge_all(const am_args *args)
{
    const plan_options *o = args->options;
    const int64_t budget = o->memory > 0 ? o->memory : merge_memory;
    const am_merge_options mo = {.block = (o->block_bytes + 7) / (int64_t)sizeof(double),
                                 .memory = budget,
                                 .n_set = args->n_set,
                                 .set = args->set};
    am_merge_plan plan = {0};
    am_merge_need need = {0};
    am_process process = {0};
    int rc = 0;
    am_memory_keep_no_holes();
    AM_TRY(am_merge_plan_all(am_world(), args->positional[0], &mo, &plan));
    AM_TRY(am_memory_process_all(am_world(), &process));
    rc = am_merge_fit(&plan, (int)o->ranks, budget, mo.block, &process, &need);
    AM_KEEP(report(o, &plan, &need));
    AM_AGREE(am_world());
cleanup:
    am_merge_plan_free(&plan);
    return rc;
}

/* ---- training ---- */

static int report_training(const plan_options *o, const char *job, const am_train_need *need,
                           const am_process *process)
{
    const double mib = 1 << 20;
    if (!o->json) {
        am_info("%s on %" PRId64
                " ranks, at most on any rank, in the phase %s: memory %.1f MiB, of "
                "it data %.1f, parameters %.1f, gradients %.1f, optimiser %.1f, activations %.1f",
                job, o->ranks, need->phase, (double)need->peak / mib, (double)need->data / mib,
                (double)need->parameters / mib, (double)need->gradients / mib,
                (double)need->optimizer / mib, (double)need->activations / mib);
        return 0;
    }
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "job", job);
    am_json_int(&j, "ranks", o->ranks);
    am_json_string(&j, "phase", need->phase);
    am_json_int(&j, "peak_bytes", need->peak);
    am_json_int(&j, "process_bytes", process->now);
    am_json_int(&j, "data_bytes", need->data);
    am_json_int(&j, "parameter_bytes", need->parameters);
    am_json_int(&j, "gradient_bytes", need->gradients);
    am_json_int(&j, "optimizer_bytes", need->optimizer);
    am_json_int(&j, "activation_bytes", need->activations);
    am_json_end_object(&j);
    int rc = am_json_finish(&j);
    if (rc == 0) {
        am_result(&j);
    }
    am_json_free(&j);
    return rc;
}

/* What the job itself would refuse. */
static int check(int job, const am_train_recipe *recipe)
{
    return job == THEORY    ? am_theory_check(recipe)
           : job == TWIN    ? am_twin_check(recipe)
           : job == REGMEAN ? am_regmean_check(recipe)
           : job == STATS   ? am_stats_check_recipe(recipe)
                            : AM_OK;
}

static int plan_training_all(const am_args *args, int job)
{
    const plan_options *o = args->options;
    am_train_recipe recipe = {0};
    am_train_need need = {0};
    am_process process = {0};
    int rc = 0;
    am_memory_keep_no_holes();
    AM_TRY(am_job_recipe_all(args, o->task, &recipe));
    if (job == STATS) {
        am_stats_adapt(&am_stats_defaults, &recipe);
    }
    AM_TRY(check(job, &recipe)); /* the same on all ranks */
    AM_TRY(job == ALIGN || job == PLEAS
               ? am_align_plan_all(&recipe, job == PLEAS, (int)o->ranks, o->memory, &need, &process)
               : am_train_fit_all(am_world(), &recipe, kinds[job], (int)o->ranks, o->memory, &need,
                                  &process));
    rc = report_training(o, job_names[job], &need, &process);
    AM_AGREE(am_world());
cleanup:
    am_train_recipe_free(&recipe);
    return rc;
}

/* Recipes of training have data. */
static int find_job_all(const am_args *args, int *job)
{
    const plan_options *o = args->options;
    am_yaml *yaml = NULL;
    int rc = 0;
    *job = o->job;
    if (o->job == AUTO) {
        AM_TRY(am_yaml_read_all(am_world(), args->positional[0], &yaml));
        const am_node *root = am_yaml_root(yaml);
        *job = am_node_find(root, "theory") != NULL                            ? THEORY
               : am_node_find(am_node_find(root, "twin"), "models") != NULL    ? TWIN
               : am_node_find(am_node_find(root, "regmean"), "models") != NULL ? REGMEAN
               : am_node_find(root, "data") != NULL                            ? ITERATE
                                                                               : MERGE;
    }
    if (o->task != NULL && (*job == MERGE || *job == ITERATE || *job == THEORY || *job == TWIN ||
                            *job == REGMEAN)) { /* [same] */
        rc = am_fail(AM_E_USAGE, "--task goes with --job train, stats, align and pleas");
    }
cleanup:
    am_yaml_free(&yaml);
    return rc;
}

static int run_all(const am_args *args, int *exit_status)
{
    int job = AUTO, rc = 0;
    (void)exit_status;
    AM_TRY(find_job_all(args, &job));
    rc = job == MERGE ? plan_merge_all(args) : plan_training_all(args, job);
cleanup:
    return rc;
}

const am_command am_command_plan = {
    .name = "plan",
    .synopsis =
        "RECIPE [--ranks N] [--memory SIZE] [--set KEY=VALUE]... [--block SIZE] [--job train "
        "[--task NAME]] [--json]",
    .summary = "Say what a merge or a training job would take: memory, bytes read and written.",
    .help =
        "Reads the recipe and the headers of its inputs; nothing is written. Numbers are those "
        "of the rank that takes most. A budget that does not do is refused, as by merge. Of train, "
        "iterate, theory, stats, twin, regmean, align (by activations) and pleas (at a budget of "
        "2): the "
        "memory of their largest phase; with --memory data sets that do not fit are counted as the "
        "pages that stay in memory.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(plan_options),
    .takes_set = true,
    .run_all = run_all,
};
