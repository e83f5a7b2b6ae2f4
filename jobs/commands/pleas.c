/* allmerge pleas RECIPE ONE TWO -o RUN/: one network out of two that were trained apart.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/align/pleas.h"
#include "mpi/agree.h"
#include "mpi/runtime.h"

#define AM_AT(member) offsetof(am_pleas_request, member)
static const am_param options[] = {
    {"output", AM_PARAM_STRING, AM_AT(output), NULL, 0, 0, NULL,
     "folder of the merged network: trunk.h5, heads.h5, recipe.yml"},
    {"budget", AM_PARAM_REAL, AM_AT(budget), "1", 1, 2, NULL,
     "width of layers that can grow, of that of one network: 1 pairs all units, 2 none"},
    {"match", AM_PARAM_CHOICE, AM_AT(match), "activations", 0, 0, "weights|activations|both",
     "what goes together"},
    {"ridge", AM_PARAM_REAL, AM_AT(ridge), "1e-4", 1e-10, 1e6, NULL,
     "of the least squares, of the mean square of a layer's inputs"},
    {"seed", AM_PARAM_INT, AM_AT(seed), "0", 0, 0x1p53, NULL,
     "of the order in which groups of units are visited"},
    {"sweeps", AM_PARAM_INT, AM_AT(sweeps), "100", 1, 1 << 20, NULL,
     "over all groups, at most, of matching by weights"},
    AM_PAIR_OPTIONS(am_pleas_request),
    {"overwrite", AM_PARAM_BOOL, AM_AT(overwrite), "no", 0, 0, NULL, "start over"},
    {0},
};
#undef AM_AT

static int run_all(const am_args *args, int *exit_status)
{
    static const char *const of_sweeps[] = {"seed", "sweeps", NULL};
    const am_pleas_request *request = args->options;
    (void)exit_status;
    int rc = request->match == AM_BY_ACTIVATIONS
                 ? am_args_refuse(args, options, of_sweeps,
                                  "goes with --match weights or both: by activations there is one "
                                  "best order")
                 : AM_OK;
    AM_AGREE(am_world());
    AM_TRY(am_pleas_run_all(args, request));
cleanup:
    return rc;
}

const am_command am_command_pleas = {
    .name = "pleas",
    .synopsis = "RECIPE ONE TWO -o RUN/ [--budget 1.5] [--match activations] [--ridge 1e-4] "
                "[--task NAME] [--split train] [--samples N] [--memory SIZE] [--overwrite] "
                "[--set KEY=VALUE]...",
    .summary = "Merge two networks that were trained apart into one of up to twice the width.",
    .help = "RECIPE is one of train or iterate; ONE and TWO are folders with trunk.h5 and heads.h5 "
            "of its shape, as train leaves them. Units whose activations on the samples of the "
            "recipe are most alike become one, the others stand side by side, and every weight "
            "is fitted by least squares to what both networks do (PLeaS). RUN/ has the merged "
            "network and recipe.yml, which describes it and begins with it: allmerge train "
            "RUN/recipe.yml -o NEXT/, allmerge eval RUN/recipe.yml --model "
            "RUN/trunk.h5 --heads RUN/heads.h5. A head that both have gives the mean of their "
            "logits, others give those of their own network.",
    .min_positional = 3,
    .max_positional = 3,
    .options = options,
    .options_bytes = sizeof(am_pleas_request),
    .takes_set = true,
    .run_all = run_all,
};
