/* The shell script that submits a chain of jobs: what `submit --dry-run` prints and `submit` runs.
 * Writing goes to memory; everything here is local and pure but am_script_run.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_SUBMIT_SCRIPT_H
#define AM_JOBS_SUBMIT_SCRIPT_H

#include <stdbool.h>
#include <stdio.h>
#include "jobs/submit/site.h"

typedef struct am_script {
    FILE *out; /* NULL: out of memory */
    char *text;
    size_t bytes;
} am_script;

/** Arguments are written one by one: am_script_word adds a blank and the word, quoted. */
int am_script_open(am_script *script);
/** End it; script->text is then the whole. Errors: AM_E_NOMEM. */
int am_script_close(am_script *script);
void am_script_free(am_script *script);
void am_script_word(am_script *script, const char *word);
/** A file with this text, made by the script; `path` may not be in a folder that is missing. */
void am_script_file(am_script *script, const char *path, const char *text);

typedef struct am_job_request {
    const char *name;      /* of the job, and of the shell variable that holds its id */
    const char *after;     /* name of a job before it in the script, or a job id; NULL: none */
    const char *time;      /* NULL: the site's */
    const char *logs;      /* folder of the logs; "" for the folder of submission */
    int64_t ranks, memory; /* bytes that Slurm gives a rank */
    const char *cases;     /* file of an array, NULL: one job */
    int64_t n_cases;
    bool has_result; /* stdout goes to a file of its own, NAME-....json */
} am_job_request;

/** `NAME=$(sbatch ... allmerge.sbatch ...`; the caller adds the command's words, then calls
 * am_script_job_end. */
void am_script_job(am_script *script, const am_site *site, const am_job_request *job);
void am_script_job_end(am_script *script, const char *name);

/** Run the script with bash, in the environment that this process was started in. Local, one rank.
 * Errors: AM_E_NOINPUT without sbatch; AM_E_IO when a command of it fails, which says why on
 * stderr. */
int am_script_run(const am_script *script);

#endif
