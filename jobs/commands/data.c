/* allmerge data list | prepare NAME... -o DIR/: the data sets that can be made from Debian
 * packages, and making them. Tasks are shared out over the ranks; each task is made by one rank
 * and depends on its name and the seed only. SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "io/dataset/csv.h"
#include "io/dataset/dataset.h"
#include "io/dataset/packages.h"
#include "jobs/command.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/reduce.h"
#include "mpi/runtime.h"

typedef struct am_data_options {
    char *output, *sources, *label;
    int64_t seed;
    bool json, overwrite, standardize;
} am_data_options;

static const am_param options[] = {
    {"output", AM_PARAM_STRING, offsetof(am_data_options, output), "", 0, 0, NULL,
     "prepare, csv: folder for TASK.h5, made if it is missing (-o)"},
    {"sources", AM_PARAM_STRING, offsetof(am_data_options, sources), "data/packages", 0, 0, NULL,
     "folder of unpacked packages (jobs/fetch-data); then the installed ones are tried"},
    {"label", AM_PARAM_STRING, offsetof(am_data_options, label), "", 0, 0, NULL,
     "csv: the column that holds the classes"},
    {"standardize", AM_PARAM_BOOL, offsetof(am_data_options, standardize), "false", 0, 0, NULL,
     "csv: scale every feature by mean and deviation of the training rows"},
    {"seed", AM_PARAM_INT, offsetof(am_data_options, seed), "0", 0, 9007199254740992.0, NULL,
     "prepare, csv: seed of the choice of samples"},
    {"overwrite", AM_PARAM_BOOL, offsetof(am_data_options, overwrite), "false", 0, 0, NULL,
     "prepare, csv: make files again that exist"},
    {"json", AM_PARAM_BOOL, offsetof(am_data_options, json), "false", 0, 0, NULL,
     "list: one JSON line on standard output"},
    {NULL, AM_PARAM_BOOL, 0, NULL, 0, 0, NULL, NULL}};

/* One task that can be made. */
typedef struct am_task {
    const char *name;
    const am_dataset_source *source;
    bool is_suite;
} am_task;

enum { MAX_TASKS = 256, COUNTS = AM_SPLITS + 2 }; /* n of the splits, classes, 1 if kept */

/* All tasks of all sources, in the order of the source table. */
static int64_t list_tasks(am_task tasks[MAX_TASKS])
{
    int64_t n = 0;
    for (int64_t i = 0; am_dataset_source_table[i] != NULL; i++) {
        const am_dataset_source *s = am_dataset_source_table[i];
        const char *const own[] = {s->name, NULL};
        const char *const *names = s->tasks != NULL ? s->tasks : own;
        for (int64_t k = 0; names[k] != NULL && n < MAX_TASKS; k++) {
            tasks[n++] = (am_task){names[k], s, !s->optional};
        }
        for (int64_t k = 0; s->extra != NULL && s->extra[k] != NULL && n < MAX_TASKS; k++) {
            tasks[n++] = (am_task){s->extra[k], s, false};
        }
    }
    return n;
}

/* ---- list ---- */

/* Packages of a source that are neither below the sources nor installed. */
static int64_t count_absent(const char *const *roots, const char *packages, int64_t *total)
{
    int64_t absent = 0;
    char name[256];
    *total = 0;
    for (const char *at = packages; *at != '\0'; at += strspn(at, " ")) {
        size_t bytes = strcspn(at, " ");
        (void)snprintf(name, sizeof name, "%.*s", (int)bytes, at);
        absent += !am_package_present(roots, name);
        (*total)++;
        at += bytes;
    }
    return absent;
}

static int list_json(const am_task *tasks, int64_t n, const char *const *roots)
{
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_array(&j, "tasks");
    for (int64_t i = 0; i < n; i++) {
        int64_t total = 0;
        am_json_object(&j, NULL);
        am_json_string(&j, "name", tasks[i].name);
        am_json_string(&j, "source", tasks[i].source->name);
        am_json_string(&j, "help", tasks[i].source->help);
        am_json_bool(&j, "suite", tasks[i].is_suite);
        am_json_string(&j, "packages", tasks[i].source->packages);
        am_json_string(&j, "licence", tasks[i].source->licence);
        am_json_int(&j, "packages_absent", count_absent(roots, tasks[i].source->packages, &total));
        am_json_end_object(&j);
    }
    am_json_end_array(&j);
    am_json_end_object(&j);
    return am_result_end(&j);
}

static int list_text(const am_task *tasks, int64_t n, const char *const *roots)
{
    printf("%-12s %-6s %-10s %s\n", "task", "suite", "packages", "what it is");
    for (int64_t i = 0; i < n; i++) {
        const am_dataset_source *s = tasks[i].source;
        int64_t total = 0, absent = count_absent(roots, s->packages, &total);
        char have[64];
        (void)snprintf(have, sizeof have, "%lld of %lld", (long long)(total - absent),
                       (long long)total);
        printf("%-12s %-6s %-10s %s\n", tasks[i].name, tasks[i].is_suite ? "yes" : "no", have,
               s->help);
    }
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || tasks[i].source != tasks[i - 1].source) {
            printf("licence of %s: %s\n", tasks[i].source->name, tasks[i].source->licence);
        }
    }
    printf("groups: suite (all tasks marked yes), all. Packages are looked for below --sources "
           "(%s), then among the installed ones; `jobs/fetch-data %s` fetches all of them.\n",
           roots[0], roots[0]);
    return fflush(stdout) == 0 ? 0
                               : am_fail_errno(AM_E_IO, errno, "cannot write to standard output");
}

/* ---- prepare ---- */

/* Mark the tasks asked for: names, `suite`, `all`. */
static int choose(const am_args *args, const am_task *tasks, int64_t n, bool chosen[MAX_TASKS])
{
    const char *names[MAX_TASKS + 3];
    for (int64_t i = 0; i < n; i++) {
        names[i] = tasks[i].name;
    }
    names[n] = "suite";
    names[n + 1] = "all";
    names[n + 2] = NULL;
    for (int k = 1; k < args->n_positional; k++) {
        const char *word = args->positional[k];
        bool is_all = strcmp(word, "all") == 0, is_suite = strcmp(word, "suite") == 0;
        bool is_known = is_all || is_suite;
        for (int64_t i = 0; i < n; i++) {
            if (is_all || (is_suite && tasks[i].is_suite) || strcmp(word, tasks[i].name) == 0) {
                chosen[i] = is_known = true;
            }
        }
        if (!is_known) {
            const char *nearest = am_nearest(names, word);
            return nearest != NULL
                       ? am_fail(AM_E_USAGE, "no data set '%s'; did you mean '%s'?", word, nearest)
                       : am_fail(AM_E_USAGE, "no data set '%s'; `allmerge data list` shows them",
                                 word);
        }
    }
    return args->n_positional > 1
               ? 0
               : am_fail(AM_E_USAGE, "data prepare: name data sets, or suite, or all");
}

/* Make the output folder and its parents. */
static int make_folder(const char *path)
{
    int rc = 0;
    char *copy = strdup(path);
    if (copy == NULL) {
        return am_fail(AM_E_NOMEM, "no memory for a path");
    }
    for (char *slash = copy + 1; rc == 0 && slash[-1] != '\0'; slash++) {
        if (*slash == '/' || *slash == '\0') {
            char kept = *slash;
            *slash = '\0';
            if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
                rc = am_fail_errno(AM_E_CREATE, errno, "cannot make folder %s", copy);
            }
            *slash = kept;
        }
    }
    struct stat st;
    if (rc == 0 && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))) {
        rc = am_fail(AM_E_CREATE, "%s is not a folder: give -o another name", path);
    }
    free(copy);
    return rc;
}

/* One table as FOLDER/NAME.h5. Local. */
static int make_table(const char *path, const am_data_options *o, am_json *json)
{
    am_prepared p = {0};
    const char *slash = strrchr(path, '/'), *file = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(file, '.');
    const int length = (int)(dot != NULL && dot > file ? dot - file : (ptrdiff_t)strlen(file));
    char *name = strndup(file, (size_t)length), *out = NULL;
    int rc = 0;
    if (name == NULL || asprintf(&out, "%s/%s.h5", o->output, name) < 0) {
        out = NULL;
        AM_TRY(am_fail(AM_E_NOMEM, "no memory for a path"));
    }
    AM_TRY(am_csv_read(path, o->label, o->standardize, (uint64_t)o->seed, &p));
    AM_TRY(make_folder(o->output));
    AM_TRY(am_prepared_write(out, name, (uint64_t)o->seed, &p, o->overwrite));
    am_info("%-12s %3lld classes, %lld features, %lld train, %lld validation, %lld test samples",
            name, (long long)p.classes, (long long)p.features, (long long)p.n[AM_TRAIN],
            (long long)p.n[AM_VALIDATION], (long long)p.n[AM_TEST]);
    am_json_object(json, NULL);
    am_json_string(json, "name", name);
    am_json_int(json, "classes", p.classes);
    am_json_int(json, "features", p.features);
    am_json_int(json, "train", p.n[AM_TRAIN]);
    am_json_int(json, "validation", p.n[AM_VALIDATION]);
    am_json_int(json, "test", p.n[AM_TEST]);
    am_json_end_object(json);
cleanup:
    am_prepared_free(&p);
    free(name);
    free(out);
    return rc;
}

static int csv_all(MPI_Comm comm, const am_args *args, const am_data_options *o)
{
    int rc = o->output != NULL && o->label != NULL && args->n_positional > 1
                 ? 0
                 : am_fail(AM_E_USAGE,
                           "data csv: give FILE.csv, --label COLUMN and a folder with -o DIR/");
    if (am_world_rank() == 0) {
        am_json json = {0};
        am_json_object(&json, NULL);
        am_json_array(&json, "tasks");
        for (int i = 1; i < args->n_positional; i++) {
            AM_KEEP(make_table(args->positional[i], o, &json));
        }
        am_json_end_array(&json);
        am_json_end_object(&json);
        AM_KEEP(am_json_finish(&json));
        if (rc == 0) {
            am_result(&json);
        }
        am_json_free(&json);
    }
    return am_agree_all(comm, rc);
}

/* Make one task, or keep a file of the same name and seed. Local. */
static int prepare_one(const am_task *task, const am_data_options *o, const char *const *roots,
                       int64_t counts[COUNTS])
{
    int rc = 0;
    bool is_kept = false;
    am_prepared p = {0};
    char *path = NULL;
    if (asprintf(&path, "%s/%s.h5", o->output, task->name) < 0) {
        path = NULL;
        AM_TRY(am_fail(AM_E_NOMEM, "no memory for a path"));
    }
    if (!o->overwrite) {
        AM_TRY(am_prepared_present(path, task->name, (uint64_t)o->seed, &is_kept));
    }
    if (!is_kept) {
        AM_TRY(task->source->prepare(task->name, roots, (uint64_t)o->seed, &p));
        AM_TRY(am_prepared_write(path, task->name, (uint64_t)o->seed, &p, o->overwrite));
    }
    for (int s = 0; s < AM_SPLITS; s++) {
        counts[s] = p.n[s];
    }
    counts[AM_SPLITS] = p.classes;
    counts[AM_SPLITS + 1] = is_kept;
cleanup:
    am_prepared_free(&p);
    free(path);
    return rc;
}

static int report(const am_task *tasks, int64_t n, const bool *chosen, int64_t (*counts)[COUNTS],
                  const char *folder)
{
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "folder", folder);
    am_json_array(&j, "tasks");
    for (int64_t i = 0; i < n; i++) {
        const int64_t *c = counts[i];
        if (!chosen[i]) {
            continue;
        }
        if (c[AM_SPLITS + 1] != 0) {
            am_info("%-12s kept, was made with this seed (--overwrite makes it again)",
                    tasks[i].name);
        } else {
            am_info("%-12s %3lld classes, %lld train, %lld validation, %lld test samples",
                    tasks[i].name, (long long)c[AM_SPLITS], (long long)c[AM_TRAIN],
                    (long long)c[AM_VALIDATION], (long long)c[AM_TEST]);
        }
        am_json_object(&j, NULL);
        am_json_string(&j, "name", tasks[i].name);
        am_json_bool(&j, "kept", c[AM_SPLITS + 1] != 0);
        if (c[AM_SPLITS + 1] == 0) {
            am_json_int(&j, "classes", c[AM_SPLITS]);
            am_json_int(&j, "train", c[AM_TRAIN]);
            am_json_int(&j, "validation", c[AM_VALIDATION]);
            am_json_int(&j, "test", c[AM_TEST]);
        }
        am_json_end_object(&j);
    }
    am_json_end_array(&j);
    am_json_end_object(&j);
    return am_result_end(&j);
}

static int prepare_all(MPI_Comm comm, const am_args *args, const am_data_options *o,
                       const char *const *roots)
{
    int rc = 0;
    am_task tasks[MAX_TASKS];
    bool chosen[MAX_TASKS] = {false};
    int64_t n = list_tasks(tasks), turn = 0;
    int64_t(*counts)[COUNTS] = am_new(MAX_TASKS, sizeof *counts, "table of tasks");
    AM_KEEP(counts != NULL ? 0 : AM_E_NOMEM);
    AM_KEEP(o->output != NULL
                ? 0
                : am_fail(AM_E_USAGE, "data prepare: give the folder for the files with -o DIR/"));
    AM_KEEP(choose(args, tasks, n, chosen));
    if (am_world_rank() == 0) {
        AM_KEEP(make_folder(o->output));
    }
    AM_AGREE(comm);
    for (int64_t i = 0; i < n; i++) {
        if (chosen[i] && turn++ % am_world_size() == am_world_rank()) {
            am_alive("data prepare");
            AM_KEEP(am_stop_requested() ? am_fail(AM_E_STOPPED, "stopped before %s", tasks[i].name)
                                        : prepare_one(&tasks[i], o, roots, counts[i]));
        }
    }
    AM_AGREE(comm);
    AM_TRY(am_sum_i64_all(comm, &counts[0][0], n * COUNTS));
    if (am_world_rank() == 0) {
        AM_KEEP(report(tasks, n, chosen, counts, o->output));
    }
    AM_AGREE(comm);
cleanup:
    free(counts);
    return rc;
}

static int list_all(MPI_Comm comm, const am_args *args, const am_data_options *o,
                    const char *const *roots)
{
    int rc = args->n_positional == 1
                 ? 0
                 : am_fail(AM_E_USAGE, "data list: unexpected argument '%s'", args->positional[1]);
    if (am_world_rank() == 0) {
        am_task tasks[MAX_TASKS];
        int64_t n = list_tasks(tasks);
        AM_KEEP(o->json ? list_json(tasks, n, roots) : list_text(tasks, n, roots));
    }
    return am_agree_all(comm, rc);
}

static int run_all(const am_args *args, int *exit_status)
{
    const am_data_options *o = args->options;
    const char *const roots[] = {o->sources != NULL ? o->sources : "data/packages", "", NULL};
    const char *verb = args->positional[0];
    (void)exit_status;
    if (strcmp(verb, "list") == 0) {
        return list_all(am_world(), args, o, roots);
    }
    if (strcmp(verb, "prepare") == 0) {
        return prepare_all(am_world(), args, o, roots);
    }
    if (strcmp(verb, "csv") == 0) {
        return csv_all(am_world(), args, o);
    }
    return am_agree_all(am_world(),
                        am_fail(AM_E_USAGE, "data: '%s' is neither list, prepare nor csv", verb));
}

const am_command am_command_data = {
    .name = "data",
    .synopsis = "list [--json] | prepare NAME...|suite|all -o DIR/ [--sources FOLDER] [--seed N] | "
                "csv FILE... --label COLUMN -o DIR/",
    .summary = "list the data sets that can be made from Debian packages, or make them",
    .help = "`jobs/fetch-data FOLDER` fetches the packages; nothing is installed.\n"
            "prepare writes one DIR/TASK.h5 with train, validation and test splits a task. A file\n"
            "that was made with the same seed is kept. The layout of the files, and how to make\n"
            "your own, is in io/datasets/README.md.\n"
            "csv makes one of each table: a header, one sample a row, one column of labels, the\n"
            "others numbers; rows are divided 80 : 10 : 10. A missing value is an error.\n",
    .min_positional = 1,
    .max_positional = -1,
    .options = options,
    .options_bytes = sizeof(am_data_options),
    .run_all = run_all,
};
