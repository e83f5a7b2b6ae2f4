/* `allmerge pleas`: one network out of two that were trained apart, with a budget of width. The
 * output is a run folder as `train` leaves it. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_ALIGN_PLEAS_H
#define AM_JOBS_ALIGN_PLEAS_H

#include "jobs/align/samples.h"

typedef struct am_pleas_request {
    char *output; /* run folder */
    double budget, ridge;
    int match; /* am_align_by */
    int64_t seed, sweeps;
    am_pair_request on;
    bool overwrite;
} am_pleas_request;

/** Do it: args->positional are the recipe and the folders of the two networks, each with trunk.h5
 * and heads.h5. Collective [am_world]. Errors: AM_E_RECIPE, AM_E_USAGE, AM_E_DATA; those of run
 * folder, statistics and fits. */
int am_pleas_run_all(const am_args *args, const am_pleas_request *request);

#endif
