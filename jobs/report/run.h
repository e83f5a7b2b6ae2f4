/* Run folders, read: RUN/result.json, RUN/job.json and RUN/events.jsonl of finished runs that
 * differ in their seed only. What is read is checked here (rules.c), so that pages need not.
 * Local functions, rank 0. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_REPORT_RUN_H
#define AM_JOBS_REPORT_RUN_H

#include <jansson.h>
#include <stdbool.h>
#include "jobs/report/grid.h"

typedef struct am_report_run {
    char *path; /* of the folder, owned */
    json_int_t seed;
    json_t *result, *job; /* owned */
    json_t *recipe;       /* of job, borrowed */
    json_t *events;       /* list, owned: without the lists by class and tensor */
} am_report_run;

typedef struct am_report {
    int n;
    am_report_run *run; /* ascending in the seed, owned */
    json_t
        *all; /* result of the first run, with the rows and rounds that only others have; owned */
    const char *job, *experiment; /* borrowed of the first run; experiment: NULL if there is none */
} am_report;

/** Read n run folders. Errors: AM_E_NOINPUT (no folder, not finished), AM_E_DATA (damaged, another
 * kind of job, other recipes, a seed twice), AM_E_IO, AM_E_NOMEM. out: freed in any case. */
int am_report_open(char *const *paths, int n, am_report *out);
void am_report_close(am_report *report);

/* ---- members; absent and null are NaN or NULL ---- */
double am_member_number(const json_t *object, const char *key);
const char *am_member_text(const json_t *object, const char *key);
double am_item_number(const json_t *list, size_t i);
bool am_is_text(const json_t *object, const char *key, const char *text);
/** Member of the result of the first run; rows and rounds are those of all runs, each key once. */
const json_t *am_report_member(const am_report *report, const char *key);
/** Names of the tasks, NULL-terminated and NULL beyond; borrowed strings in malloc'ed memory, *n of
 * them. NULL: no memory. */
const char **am_report_tasks(const am_report *report, int *n);

#endif
