/* What train and iterate share: from the recipe to the result. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_JOBS_TRAINING_JOB_H
#define AM_JOBS_TRAINING_JOB_H

#include "jobs/command.h"
#include "jobs/training/iterate/iterate.h"
#include "jobs/training/memory.h"

typedef struct am_job {
    const char *name; /* of the command */
    am_train_job kind;
    const char *output; /* run folder */
    const char *task;   /* the only one of the recipe's to use; NULL: all */
    bool overwrite;
    void *self; /* of the command, for what follows; borrowed */
    /* Is the recipe one for this job? Errors: AM_E_RECIPE. NULL: any. Local, pure. */
    int (*check)(const am_train_recipe *recipe);
    /* Paths of what it reads; NULL: am_train_recipe_inputs. */
    char **(*inputs)(const am_train_recipe *recipe);
    /* Fill the table. Collective [it->suite.comm]. */
    int (*work_all)(am_iterate *it, const am_run_folder *folder, const struct am_job *job);
    /* Members of the result. Local. */
    void (*describe)(const am_iterate *it, const struct am_job *job, am_json *json);
    /* table.txt, owned by the caller; NULL with AM_E_NOMEM in the slot. Local. */
    char *(*text)(const am_iterate *it, const struct am_job *job);
    const char *model; /* file of the run folder that holds the result; NULL: no model does */
    double save_every; /* of train */
    int64_t memory;    /* bytes that a rank may take, 0: any */
} am_job;

/** Read the recipe of args, open data and run folder, work, and report: table.txt, result.json, the
 * line for programs. A finished run only prints its line again.
 * Collective [am_world]. Errors: those of the parts; AM_E_USAGE for an unknown task. */
int am_job_run_all(const am_args *args, const am_job *job);

/** Read a recipe, reduced to one of its tasks if `task` is not NULL. Collective [am_world]. out:
 * freed by am_train_recipe_free, also after an error. */
int am_job_recipe_all(const am_args *args, const char *task, am_train_recipe *out);

/** `text` of jobs whose result is it->table. */
char *am_job_table(const am_iterate *it, const am_job *job);

#endif
