/* Run folders, read: see run.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/report/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "io/commit/identity.h"
#include "io/file.h"
#include "jobs/report/page.h"
#include "mpi/arena.h"
#include "mpi/error.h"

static const int64_t most_bytes = (int64_t)1 << 30;

static const am_rule result_rules[] = {{"job", AM_RULE_NAME},
                                       {"experiment", AM_RULE_TEXT},
                                       {"seed", AM_RULE_NUMBER},
                                       {"tasks", AM_RULE_LIST},
                                       {"tasks[]", AM_RULE_NAME},
                                       {"rows", AM_RULE_LIST},
                                       {"rows[].key", AM_RULE_TEXT},
                                       {"rows[].name", AM_RULE_TEXT},
                                       {"rows[].alpha", AM_RULE_NUMBER},
                                       {"rows[].epochs", AM_RULE_NUMBER},
                                       {"rows[].round", AM_RULE_NUMBER},
                                       {"rows[].validation_accuracy", AM_RULE_NUMBER},
                                       {"rows[].validation_loss_nats", AM_RULE_NUMBER},
                                       {"rows[].test_accuracy", AM_RULE_NUMBER},
                                       {"rows[].test_loss_nats", AM_RULE_NUMBER},
                                       {"rows[].task_accuracy", AM_RULE_LIST},
                                       {"rows[].task_accuracy[]", AM_RULE_NUMBER},
                                       {"rows[].task_loss_nats", AM_RULE_LIST},
                                       {"rows[].task_loss_nats[]", AM_RULE_NUMBER},
                                       {0}};
static const am_rule row_rules[] = {{"rows", AM_RULE_ROWS}, {"rows[].key", AM_RULE_NAME}, {0}};
static const am_rule kind_rules[] = {{"job", AM_RULE_NAME}, {0}};
static const am_rule job_rules[] = {{"recipe", AM_RULE_SECTION},
                                    {"recipe.seed", AM_RULE_NUMBER},
                                    {"recipe.data.tasks", AM_RULE_LIST},
                                    {"recipe.data.tasks[]", AM_RULE_NAME},
                                    {"inputs", AM_RULE_LIST},
                                    {"inputs[].path", AM_RULE_NAME},
                                    {0}};
static const am_rule event_rules[] = {{"event", AM_RULE_NAME},
                                      {"phase", AM_RULE_TEXT},
                                      {"method", AM_RULE_TEXT},
                                      {"round_epochs", AM_RULE_NUMBER},
                                      {"task", AM_RULE_TEXT},
                                      {"alpha", AM_RULE_NUMBER},
                                      {"round", AM_RULE_NUMBER},
                                      {"epoch", AM_RULE_NUMBER},
                                      {"epochs", AM_RULE_NUMBER},
                                      {"step", AM_RULE_NUMBER},
                                      {"validation_accuracy", AM_RULE_NUMBER},
                                      {"validation_loss_nats", AM_RULE_NUMBER},
                                      {"task_accuracy", AM_RULE_LIST},
                                      {"task_accuracy[]", AM_RULE_NUMBER},
                                      {"norms", AM_RULE_LIST},
                                      {"norms[]", AM_RULE_NUMBER},
                                      {"cosines", AM_RULE_LIST},
                                      {"cosines[]", AM_RULE_LIST},
                                      {"cosines[][]", AM_RULE_NUMBER},
                                      {"gradient_norm_mean", AM_RULE_NUMBER},
                                      {"update_energy", AM_RULE_NUMBER},
                                      {"samples", AM_RULE_NUMBER},
                                      {"train_seconds", AM_RULE_NUMBER},
                                      {0}};

/* ---- one folder ---- */

/* A file of the folder as text. */
static int read_file(const char *folder, const char *name, char **path, char **text, int64_t *n)
{
    *text = NULL;
    *path = am_text("%s/%s", folder, name);
    return *path != NULL ? am_file_slurp(*path, most_bytes, text, n) : AM_E_NOMEM;
}

static int parse(const char *path, int64_t line, const char *text, size_t n, json_t **out)
{
    json_error_t error;
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(*out)) {
        return 0;
    }
    const char *why = *out != NULL ? "no object" : error.text;
    if (*out == NULL && json_error_code(&error) == json_error_out_of_memory) {
        return am_fail(AM_E_NOMEM, "out of memory for %s", path);
    }
    return line > 0 ? am_fail(AM_E_DATA, "%s: line %lld is not JSON (%s): remove that line", path,
                              (long long)line, why)
                    : am_fail(AM_E_DATA,
                              "%s is not JSON (line %d: %s): the file is damaged, make the "
                              "run again",
                              path, error.line, why);
}

static int read_object(const char *folder, const char *name, const am_rule *rules, json_t **out)
{
    char *path = NULL, *text = NULL;
    int64_t n = 0;
    int rc = read_file(folder, name, &path, &text, &n);
    AM_KEEP(parse(path, 0, text, (size_t)n, out));
    AM_KEEP(am_rules_check(rules, *out, path));
    free(text);
    free(path);
    return rc;
}

/* Keep what the report reads: lists by class and by tensor are most of the file. */
static void slim(json_t *event)
{
    static const char *const bulky[] = {"task_class_accuracy",   "tensor_update_energy",
                                        "task_top5_accuracy",    "task_balanced_accuracy",
                                        "task_perplexity",       "task_loss_bits",
                                        "task_calibration_error"};
    for (size_t i = 0; i < sizeof bulky / sizeof *bulky; i++) {
        json_object_del(event, bulky[i]);
    }
}

static int read_line(const char *path, int64_t line, const char *text, size_t n, json_t *events)
{
    json_t *event = NULL;
    char *where = am_text("%s: line %lld", path, (long long)line);
    int rc = where != NULL ? 0 : AM_E_NOMEM;
    AM_KEEP(parse(path, line, text, n, &event));
    AM_KEEP(am_rules_check(event_rules, event, where));
    if (rc == 0) {
        slim(event);
        rc = json_array_append(events, event) == 0
                 ? 0
                 : am_fail(AM_E_NOMEM, "out of memory for %s", path);
    }
    json_decref(event);
    free(where);
    return rc;
}

static int read_events(const char *folder, json_t **out)
{
    char *path = NULL, *text = NULL;
    int64_t n = 0, line = 0;
    *out = json_array();
    int rc = *out != NULL ? 0 : am_fail(AM_E_NOMEM, "out of memory for the events of %s", folder);
    AM_KEEP(read_file(folder, "events.jsonl", &path, &text, &n));
    for (const char *at = text; rc == 0 && at < text + n;) {
        const char *end = memchr(at, '\n', (size_t)(text + n - at));
        end = end != NULL ? end : text + n;
        line++;
        if (end > at) {
            rc = read_line(path, line, at, (size_t)(end - at), *out);
        }
        at = end + 1;
    }
    free(text);
    free(path);
    return rc;
}

static int require_folder(const char *path)
{
    struct stat status;
    char *result = am_text("%s/result.json", path);
    int rc = result != NULL ? 0 : AM_E_NOMEM;
    if (rc == 0 && (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))) {
        rc = am_fail(AM_E_NOINPUT, "%s: no such run folder", path);
    } else if (rc == 0 && stat(result, &status) != 0) {
        rc = am_fail(AM_E_NOINPUT,
                     "%s is missing: the run is not finished (the same command goes on), or %s is "
                     "not a run folder of train, iterate or theory",
                     result, path);
    }
    free(result);
    return rc;
}

/* A run of a job that reports are made of, and of which recipe. */
static int check_job(const am_report_run *run)
{
    const char *job = am_member_text(run->job, "job");
    if (strcmp(job, "train") != 0 && strcmp(job, "iterate") != 0 && strcmp(job, "theory") != 0) {
        return am_fail(AM_E_DATA,
                       "%s/job.json: job is %s; a report is made of runs of train, iterate and "
                       "theory",
                       run->path, job);
    }
    char *where = am_text("%s/job.json", run->path);
    int rc = where != NULL ? 0 : AM_E_NOMEM;
    AM_KEEP(am_rules_check(job_rules, run->job, where));
    free(where);
    return rc;
}

/* What sections and the page of the run read beyond what all do. */
static int check_result(const am_report_run *run)
{
    const am_report_page *page = am_report_page_of(am_member_text(run->result, "experiment"),
                                                   am_member_text(run->result, "job"));
    char *where = am_text("%s/result.json", run->path);
    int rc = where != NULL ? 0 : AM_E_NOMEM;
    if (!am_is_text(run->result, "job", "theory")) {
        AM_KEEP(am_rules_check(row_rules, run->result, where));
    }
    AM_KEEP(am_rules_check(am_gradients_rules, run->result, where));
    AM_KEEP(am_rules_check(am_plane_rules, run->result, where));
    if (page != NULL && page->rules != NULL) {
        AM_KEEP(am_rules_check(page->rules, run->result, where));
    }
    free(where);
    return rc;
}

static int read_run(const char *path, am_report_run *run)
{
    run->path = am_clean_path(path);
    int rc = run->path != NULL ? 0 : AM_E_NOMEM;
    AM_KEEP(require_folder(run->path));
    AM_KEEP(read_object(run->path, "job.json", kind_rules, &run->job));
    AM_KEEP(check_job(run));
    AM_KEEP(read_object(run->path, "result.json", result_rules, &run->result));
    AM_KEEP(check_result(run));
    AM_KEEP(read_events(run->path, &run->events));
    if (rc == 0) {
        run->recipe = json_object_get(run->job, "recipe");
        run->seed = json_integer_value(json_object_get(run->recipe, "seed"));
    }
    return rc;
}
/* ---- all of them ---- */

static int by_seed(const void *a, const void *b)
{
    const am_report_run *x = a, *y = b;
    return x->seed != y->seed ? (x->seed > y->seed) - (x->seed < y->seed)
                              : strcmp(x->path, y->path);
}

/* Text of a job as every seed has it: without the seed, the program's version, and inputs. */
static char *common_text(const am_report_run *run)
{
    json_t *recipe = json_copy(run->recipe);
    json_t *job = json_pack("{s:s, s:O, s:o, s:[]}", "allmerge", "", "job",
                            json_object_get(run->job, "job"), "recipe", recipe, "inputs");
    char *text = NULL;
    if (job != NULL && json_object_del(recipe, "seed") == 0) {
        text = json_dumps(job, JSON_COMPACT | JSON_REAL_PRECISION(17));
    }
    json_decref(job);
    if (text == NULL) {
        am_fail(AM_E_NOMEM, "out of memory for the recipe of %s", run->path);
    }
    return text;
}

static int same_recipe(const am_report_run *first, const am_report_run *other)
{
    char what[1024], *a = common_text(first), *b = common_text(other);
    int rc = a != NULL && b != NULL ? 0 : AM_E_NOMEM;
    if (rc == 0) {
        const int differences = am_identity_compare(a, b, what, sizeof what);
        rc = differences < 0 ? differences
             : differences == 0
                 ? 0
                 : am_fail(AM_E_DATA,
                           "%s and %s are runs of different recipes (%s): a report is made of runs "
                           "that differ in their seed only",
                           first->path, other->path, what);
    }
    free(a);
    free(b);
    return rc;
}

/* An input that both read under one name has one content. */
static int same_inputs(const am_report_run *first, const am_report_run *other)
{
    static const char *const facts[] = {"bytes", "sample_xxh3", "content_xxh3"};
    const json_t *here = json_object_get(first->job, "inputs");
    const json_t *there = json_object_get(other->job, "inputs");
    for (size_t i = 0; i < json_array_size(here) && i < json_array_size(there); i++) {
        const json_t *a = json_array_get(here, i), *b = json_array_get(there, i);
        if (!am_is_text(b, "path", am_member_text(a, "path"))) {
            continue;
        }
        for (size_t k = 0; k < sizeof facts / sizeof *facts; k++) {
            const json_t *x = json_object_get(a, facts[k]), *y = json_object_get(b, facts[k]);
            if (x != NULL && y != NULL && !json_equal(x, y)) {
                return am_fail(AM_E_DATA,
                               "%s and %s read different files as %s (%s differs): a report is "
                               "made of runs that differ in their seed only",
                               first->path, other->path, am_member_text(a, "path"), facts[k]);
            }
        }
    }
    return 0;
}

/* Append what the list has not: objects with a `key` of their own. */
static int add_missing(json_t *list, const json_t *more)
{
    for (size_t i = 0; i < json_array_size(more); i++) {
        json_t *item = json_array_get(more, i);
        bool is_there = am_member_text(item, "key") == NULL;
        for (size_t j = 0; j < json_array_size(list) && !is_there; j++) {
            is_there = am_is_text(json_array_get(list, j), "key", am_member_text(item, "key"));
        }
        if (!is_there && json_array_append(list, item) != 0) {
            return am_fail(AM_E_NOMEM, "out of memory for the rows of the runs");
        }
    }
    return 0;
}

/* The result of the first run, with the rows and rounds that other runs alone have: a merge that
 * diverges with one seed has no row there. */
static int unite(const am_report *report, json_t **out)
{
    static const char *const keyed[] = {"rows", "rounds"};
    int rc = 0;
    *out = json_copy(report->run[0].result);
    for (size_t k = 0; k < sizeof keyed / sizeof *keyed && rc == 0 && *out != NULL; k++) {
        const json_t *first = json_object_get(*out, keyed[k]);
        if (!json_is_array(first)) {
            continue;
        }
        json_t *all = json_copy((json_t *)first);
        for (int i = 1; i < report->n && rc == 0 && all != NULL; i++) {
            rc = add_missing(all, json_object_get(report->run[i].result, keyed[k]));
        }
        if (all == NULL || json_object_set_new(*out, keyed[k], all) != 0) {
            AM_KEEP(am_fail(AM_E_NOMEM, "out of memory for the rows of the runs"));
        }
    }
    return *out != NULL ? rc : am_fail(AM_E_NOMEM, "out of memory for the rows of the runs");
}

int am_report_open(char *const *paths, int n, am_report *out)
{
    int rc = 0;
    *out = (am_report){.run = am_new(n, sizeof *out->run, "runs")};
    rc = out->run != NULL ? 0 : AM_E_NOMEM;
    for (int i = 0; i < n && rc == 0; i++) {
        out->n++;
        rc = read_run(paths[i], &out->run[i]);
    }
    if (rc != 0) {
        return rc;
    }
    qsort(out->run, (size_t)n, sizeof *out->run, by_seed);
    for (int i = 1; i < n && rc == 0; i++) {
        rc = same_recipe(&out->run[0], &out->run[i]);
        AM_KEEP(same_inputs(&out->run[0], &out->run[i]));
        if (rc == 0 && out->run[i].seed == out->run[i - 1].seed) {
            rc = am_fail(AM_E_DATA,
                         "%s and %s are runs of the same seed, %lld: give each once, or the "
                         "standard errors would be too small",
                         out->run[i - 1].path, out->run[i].path, (long long)out->run[i].seed);
        }
    }
    out->job = am_member_text(out->run[0].result, "job");
    out->experiment = am_member_text(out->run[0].result, "experiment");
    return rc == 0 ? unite(out, &out->all) : rc;
}

void am_report_close(am_report *report)
{
    for (int i = 0; i < report->n; i++) {
        free(report->run[i].path);
        json_decref(report->run[i].result);
        json_decref(report->run[i].job);
        json_decref(report->run[i].events);
    }
    free(report->run);
    json_decref(report->all);
    *report = (am_report){0};
}
