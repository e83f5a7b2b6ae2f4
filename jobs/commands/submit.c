/* allmerge submit RECIPE -o OUT: the Slurm jobs that a recipe takes, printed or submitted.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/command.h"
#include "jobs/recipe/yaml.h"
#include "jobs/submit/cases.h"
#include "jobs/submit/script.h"
#include "jobs/submit/size.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/runtime.h"

typedef enum kind { KIND_AUTO, KIND_MERGE, KIND_ITERATE, KIND_TRAIN, KIND_PIPELINE } kind;
static const char *const kind_names[] = {"auto", "merge", "iterate", "train", "pipeline"};

typedef struct submit_options {
    char *output, *sweep, *site, *time, *after;
    int as;
    int64_t ranks, memory;
    bool dry_run;
} submit_options;

#define AM_AT(member) offsetof(submit_options, member)
static const am_param options[] = {
    {"output", AM_PARAM_STRING, AM_AT(output), NULL, 0, 0, NULL,
     "output of the command; of a pipeline the folder of everything"},
    {"as", AM_PARAM_CHOICE, AM_AT(as), "auto", 0, 0, "auto|merge|iterate|train|pipeline",
     "what the jobs do; auto: merge or iterate, by the recipe"},
    {"sweep", AM_PARAM_STRING, AM_AT(sweep), "", 0, 0, NULL,
     "\"KEY=V1,V2 KEY=V1,V2\": an array of jobs, one for every combination of --set"},
    {"site", AM_PARAM_STRING, AM_AT(site), "", 0, 0, NULL,
     "settings of the cluster; else $ALLMERGE_SITE, else slurm/site.yml"},
    {"ranks", AM_PARAM_INT, AM_AT(ranks), "0", 0, 1 << 20, NULL,
     "ranks of a job, 0: as the data and the site say"},
    {"memory", AM_PARAM_BYTES, AM_AT(memory), "0", 0, 0x1p60, NULL,
     "what a rank may take, 0: as the plan and the site say"},
    {"time", AM_PARAM_STRING, AM_AT(time), "", 0, 0, NULL, "sbatch --time, else the site's"},
    {"after", AM_PARAM_STRING, AM_AT(after), "", 0, 0, NULL,
     "id of a job that must be done before (afterok)"},
    {"dry_run", AM_PARAM_BOOL, AM_AT(dry_run), "no", 0, 0, NULL, "print the script, do not submit"},
    {0}};
#undef AM_AT

/* All that is known of the request. */
typedef struct request {
    const submit_options *given;
    const char *recipe;
    int n_set;
    char *const *set;
    am_site site;
    am_cases cases;
    am_script script;
} request;

static am_size_limits limits_of(const request *q)
{
    return (am_size_limits){&q->site, q->given->ranks, q->given->memory};
}

/* ---- what the recipe is ---- */

static int kind_of(const am_node *root, kind *out)
{
    static const char *const merges[] = {"merge_method", "models", "slices", "modules"};
    for (size_t i = 0; *out == KIND_AUTO && i < sizeof merges / sizeof merges[0]; i++) {
        *out = am_node_find(root, merges[i]) != NULL ? KIND_MERGE : KIND_AUTO;
    }
    if (*out == KIND_AUTO && am_node_find(root, "data") != NULL) {
        *out = KIND_ITERATE;
    }
    return *out != KIND_AUTO ? 0
                             : am_node_fail(root, "neither a merge recipe (merge_method:) nor a "
                                                  "training recipe (data:)");
}

static int find_kind_all(const request *q, kind *out)
{
    am_yaml *yaml = NULL;
    int rc = 0;
    *out = (kind)q->given->as;
    AM_TRY(am_yaml_read_all(am_world(), q->recipe, &yaml));
    rc = am_yaml_override_each(yaml, q->n_set, q->set);
    AM_KEEP(rc == 0 ? kind_of(am_yaml_root(yaml), out) : 0);
    AM_AGREE(am_world());
cleanup:
    am_yaml_free(&yaml);
    return rc;
}

static int check_request(const request *q)
{
    if (q->recipe[0] == '-' && q->recipe[1] == '\0') {
        return am_fail(AM_E_USAGE, "the jobs read the recipe again: give a file, not -");
    }
    if (q->given->as == KIND_PIPELINE && q->given->sweep != NULL) {
        return am_fail(AM_E_USAGE, "--sweep goes with merge, iterate and train, not with pipeline");
    }
    if (q->given->after != NULL &&
        strspn(q->given->after, "0123456789_") != strlen(q->given->after)) {
        return am_fail(AM_E_USAGE, "--after %s is no job id", q->given->after);
    }
    return q->given->time != NULL ? am_site_check_time(q->given->time, "--time") : 0;
}

/* ---- one command: merge, iterate, train ---- */

/* --set of the command line, then those of case i. set [n_set + keys], texts of the case in `text`.
 * Returns how many, or an error. */
static int case_sets(const request *q, int64_t i, char text[AM_CASE_KEYS][AM_CASE_BYTES],
                     char **set, int *n)
{
    int rc = 0;
    memcpy(set, q->set, (size_t)q->n_set * sizeof *set);
    *n = q->n_set;
    for (int k = 0; rc == 0 && k < q->cases.n_keys; k++) {
        rc = am_cases_set(&q->cases, i, k, text[k]);
        set[(*n)++] = text[k];
    }
    return rc;
}

static int size_case_all(const request *q, kind what, char *const *set, int n_set, bool is_first,
                         am_job_size *size)
{
    const am_size_limits limits = limits_of(q);
    am_train_recipe recipe = {0};
    int rc = 0;
    if (what == KIND_MERGE) {
        return am_size_merge_all(q->recipe, set, n_set, &limits, size);
    }
    AM_TRY(am_train_recipe_read_all(am_world(), q->recipe, set, n_set, &recipe));
    if (is_first) { /* data and model are those of all */
        AM_TRY(am_size_training_all(&recipe, what == KIND_ITERATE ? recipe.n_tasks : 1, &limits,
                                    size));
    }
cleanup:
    am_train_recipe_free(&recipe);
    return rc;
}

static int size_all(const request *q, kind what, am_job_size *size)
{
    char text[AM_CASE_KEYS][AM_CASE_BYTES];
    char **set = am_new(q->n_set + AM_CASE_KEYS, sizeof *set, "arguments");
    int n_set = 0, rc = set != NULL ? 0 : AM_E_NOMEM;
    AM_AGREE(am_world());
    for (int64_t i = 0; i < q->cases.n; i++) {
        rc = case_sets(q, i, text, set, &n_set);
        AM_AGREE(am_world());
        AM_TRY(size_case_all(q, what, set, n_set, i == 0, size));
    }
cleanup:
    free(set);
    return rc;
}

/* The file of the array: arguments of each element, separated by tabs. */
static int write_cases(request *q, const char *path)
{
    char output[AM_SITE_PATH], set[AM_CASE_BYTES];
    FILE *out = q->script.out;
    int rc = 0;
    (void)fputs("cat >", out);
    am_script_word(&q->script, path);
    (void)fputs(" <<'END_OF_FILE'\n", out);
    for (int64_t i = 0; rc == 0 && i < q->cases.n; i++) {
        rc = am_cases_output(&q->cases, q->given->output, i, output, sizeof output);
        for (int k = 0; rc == 0 && k < q->cases.n_keys; k++) {
            rc = am_cases_set(&q->cases, i, k, set);
            fprintf(out, "--set\t%s\t", set);
        }
        fprintf(out, "-o\t%s\n", output);
    }
    (void)fputs("END_OF_FILE\n", out);
    return rc;
}

static void write_sets(request *q)
{
    for (int i = 0; i < q->n_set; i++) {
        am_script_word(&q->script, "--set");
        am_script_word(&q->script, q->set[i]);
    }
}

static void write_budget(request *q, const am_job_size *size)
{
    if (size->budget > 0) {
        fprintf(q->script.out, " --memory %lldMiB", (long long)(size->budget >> 20));
    }
}

static int one_command_all(request *q, kind what)
{
    char path[AM_SITE_PATH];
    am_job_size size = {0};
    int rc = 0;
    AM_TRY(size_all(q, what, &size));
    const bool is_array = q->given->sweep != NULL;
    am_job_request job = {.name = kind_names[what],
                          .after = q->given->after,
                          .time = q->given->time,
                          .logs = "",
                          .ranks = size.ranks,
                          .memory = size.memory,
                          .cases = is_array ? path : NULL,
                          .n_cases = q->cases.n};
    int n = snprintf(path, sizeof path, "%s.cases.tsv", q->given->output);
    rc = n < (int)sizeof path ? 0 : am_fail(AM_E_USAGE, "the output's name is too long");
    if (rc == 0 && is_array) {
        rc = write_cases(q, path);
    }
    am_script_job(&q->script, &q->site, &job);
    am_script_word(&q->script, kind_names[what]);
    am_script_word(&q->script, q->recipe);
    if (!is_array) {
        am_script_word(&q->script, "-o");
        am_script_word(&q->script, q->given->output);
    }
    write_sets(q);
    write_budget(q, &size);
    am_script_job_end(&q->script, job.name);
    fprintf(q->script.out, "echo \"{\\\"jobs\\\": {\\\"%s\\\": $%s}}\"\n", job.name, job.name);
    AM_AGREE(am_world());
cleanup:
    return rc;
}

/* ---- pipeline: finetune every task, merge, evaluate every task ---- */

static void write_parameters(am_json *j, const am_train_recipe *r, bool per_model)
{
    am_json_object(j, "parameters");
    for (int i = 0; r->merge.method->params[i].key != NULL; i++) {
        const am_method_param *p = &r->merge.method->params[i];
        if (p->per_model == per_model && p->is_bool) {
            am_json_bool(j, p->key, r->merge.param[i] != 0);
        } else if (p->per_model == per_model) {
            am_json_real(j, p->key, r->merge.param[i]);
        }
    }
    am_json_end_object(j);
}

/* The merge of the finetuned models, as mergekit would write it (JSON is YAML). */
static int write_merge_recipe(request *q, const am_train_recipe *r)
{
    char path[AM_SITE_PATH];
    const char *folder = q->given->output;
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "merge_method", r->merge.method->name);
    if (r->merge.method->needs_base || r->merge.method->takes_base) {
        (void)snprintf(path, sizeof path, "%s/%s/base.h5", folder, r->task[0]);
        am_json_string(&j, "base_model", path);
    }
    am_json_array(&j, "models");
    for (int t = 0; t < r->n_tasks; t++) {
        (void)snprintf(path, sizeof path, "%s/%s/trunk.h5", folder, r->task[t]);
        am_json_object(&j, NULL);
        am_json_string(&j, "model", path);
        write_parameters(&j, r, true);
        am_json_end_object(&j);
    }
    am_json_end_array(&j);
    write_parameters(&j, r, false);
    am_train_merge_print_own(&r->merge, &j);
    if (r->merge.method->drops_at_random) {
        am_json_int(&j, "seed", r->seed);
    }
    am_json_string(&j, "dtype", r->dtype == AM_DTYPE_F64 ? "float64" : "float32");
    am_json_end_object(&j);
    int rc = am_json_finish(&j);
    if (rc == 0) {
        (void)snprintf(path, sizeof path, "%s/merge.yml", folder);
        am_script_file(&q->script, path, j.text);
    }
    am_json_free(&j);
    return rc;
}

/* Arguments of the two arrays, one line a task. */
static void write_task_files(request *q, const am_train_recipe *r)
{
    const char *folder = q->given->output;
    FILE *out = q->script.out;
    for (int is_eval = 0; is_eval < 2; is_eval++) {
        char path[AM_SITE_PATH];
        (void)snprintf(path, sizeof path, "%s/%s.tsv", folder, is_eval ? "evaluate" : "finetune");
        (void)fputs("cat >", out);
        am_script_word(&q->script, path);
        (void)fputs(" <<'END_OF_FILE'\n", out);
        for (int t = 0; t < r->n_tasks; t++) {
            const char *task = r->task[t];
            if (is_eval) {
                fprintf(out, "--set\tdata.tasks=[\"%s\"]\t--heads\t%s/%s/heads.h5\n", task, folder,
                        task);
            } else {
                fprintf(out, "--task\t%s\t-o\t%s/%s\n", task, folder, task);
            }
        }
        (void)fputs("END_OF_FILE\n", out);
    }
}

static int check_pipeline(const request *q, const am_train_recipe *r)
{
    if (r->merge.method->needs_aux || r->merge.method->needs_gram) {
        return am_fail(AM_E_RECIPE,
                       "merge_method %s needs a second checkpoint for each model, "
                       "which no step of a pipeline makes",
                       r->merge.method->name);
    }
    for (int t = 0; t < r->n_tasks; t++) {
        if (strpbrk(r->task[t], "\t\n\"\\/") != NULL) {
            return am_fail(AM_E_RECIPE, "task %s: a pipeline makes a folder of its name",
                           r->task[t]);
        }
    }
    return strlen(q->given->output) + 512 < AM_SITE_PATH
               ? 0
               : am_fail(AM_E_USAGE, "the output's name is too long");
}

static void write_stages(request *q, const am_train_recipe *r, const am_job_size *size)
{
    char cases[2][AM_SITE_PATH], merged[AM_SITE_PATH], recipe[AM_SITE_PATH];
    const char *folder = q->given->output;
    const am_job_size merge = {.ranks = 1, .budget = q->site.memory, .memory = q->site.memory};
    (void)snprintf(cases[0], sizeof cases[0], "%s/finetune.tsv", folder);
    (void)snprintf(cases[1], sizeof cases[1], "%s/evaluate.tsv", folder);
    (void)snprintf(merged, sizeof merged, "%s/merged.h5", folder);
    (void)snprintf(recipe, sizeof recipe, "%s/merge.yml", folder);
    am_job_request job = {.name = "finetune",
                          .after = q->given->after,
                          .time = q->given->time,
                          .logs = folder,
                          .ranks = size->ranks,
                          .memory = size->memory,
                          .cases = cases[0],
                          .n_cases = r->n_tasks};
    am_script_job(&q->script, &q->site, &job);
    am_script_word(&q->script, "train");
    am_script_word(&q->script, q->recipe);
    write_sets(q);
    am_script_job_end(&q->script, job.name);

    job.name = "merge";
    job.after = "finetune";
    job.cases = NULL;
    job.ranks = merge.ranks;
    job.memory = merge.memory + (64 << 20);
    am_script_job(&q->script, &q->site, &job);
    am_script_word(&q->script, "merge");
    am_script_word(&q->script, recipe);
    am_script_word(&q->script, "-o");
    am_script_word(&q->script, merged);
    write_budget(q, &merge);
    am_script_job_end(&q->script, job.name);

    job.name = "evaluate";
    job.after = "merge";
    job.cases = cases[1];
    job.memory = size->memory;
    job.has_result = true;
    am_script_job(&q->script, &q->site, &job);
    am_script_word(&q->script, "eval");
    am_script_word(&q->script, q->recipe);
    write_sets(q);
    am_script_word(&q->script, "--model");
    am_script_word(&q->script, merged);
    am_script_job_end(&q->script, job.name);
    (void)fputs("echo \"{\\\"jobs\\\": {\\\"finetune\\\": $finetune, \\\"merge\\\": $merge, "
                "\\\"evaluate\\\": $evaluate}}\"\n",
                q->script.out);
}

static int pipeline_all(request *q)
{
    const am_size_limits limits = limits_of(q);
    am_train_recipe recipe = {0};
    am_job_size size = {0};
    int rc = 0;
    AM_TRY(am_train_recipe_read_all(am_world(), q->recipe, q->set, q->n_set, &recipe));
    rc = check_pipeline(q, &recipe);
    AM_AGREE(am_world());
    AM_TRY(am_size_training_all(&recipe, 1, &limits, &size));
    (void)fputs("mkdir -p", q->script.out);
    am_script_word(&q->script, q->given->output);
    (void)fputs("\n", q->script.out);
    rc = write_merge_recipe(q, &recipe);
    write_task_files(q, &recipe);
    write_stages(q, &recipe, &size);
    AM_AGREE(am_world());
cleanup:
    am_train_recipe_free(&recipe);
    return rc;
}

/* ---- the command ---- */

static int print_script(const am_script *script)
{
    (void)fputs(script->text, stdout);
    return fflush(stdout) == 0 && !ferror(stdout)
               ? 0
               : am_fail_errno(AM_E_IO, errno, "cannot write to standard output");
}

static int run_all(const am_args *args, int *exit_status)
{
    request q = {.given = args->options,
                 .recipe = args->positional[0],
                 .n_set = args->n_set,
                 .set = args->set};
    kind what = KIND_AUTO;
    int rc = 0;
    (void)exit_status;
    rc = check_request(&q);
    AM_KEEP(am_cases_read(q.given->sweep, &q.cases));
    AM_KEEP(am_script_open(&q.script));
    AM_AGREE(am_world());
    AM_TRY(am_site_read_all(am_world(), q.given->site, &q.site));
    AM_TRY(find_kind_all(&q, &what));
    if (what == KIND_PIPELINE) {
        AM_TRY(pipeline_all(&q));
    } else {
        AM_TRY(one_command_all(&q, what));
    }
    rc = am_script_close(&q.script);
    if (rc == 0 && am_world_rank() == 0) {
        rc = q.given->dry_run ? print_script(&q.script) : am_script_run(&q.script);
    }
    AM_AGREE(am_world());
cleanup:
    am_script_free(&q.script);
    am_cases_free(&q.cases);
    am_site_free(&q.site);
    return rc;
}

const am_command am_command_submit = {
    .name = "submit",
    .synopsis = "RECIPE -o OUT [--as KIND] [--sweep \"KEY=V,V\"] [--dry-run] [--set KEY=VALUE]...",
    .summary = "submit a recipe to Slurm: ranks and memory from its plan, chains of jobs",
    .help =
        "Run it on a login node, without mpirun. A merge gets as many ranks and as much memory as "
        "its plan says, so an infeasible one is refused here. --as pipeline: an array that "
        "finetunes every task of a training recipe, then a merge of the results, then an array "
        "that evaluates it on every task, each after the one before (OUT/evaluate-*.json). "
        "--dry-run "
        "prints the script that would run: sbatch of slurm/allmerge.sbatch. Jobs that are stopped "
        "or preempted are requeued and go on. Settings of the cluster: slurm/site.yml.",
    .min_positional = 1,
    .max_positional = 1,
    .options = options,
    .options_bytes = sizeof(submit_options),
    .takes_set = true,
    .run_all = run_all,
};
