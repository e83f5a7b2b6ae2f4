/* allmerge report RUN... -o OUT.html: finished runs as one page. SPDX-License-Identifier:
 * BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "jobs/command.h"
#include "jobs/report/report.h"
#include "mpi/agree.h"
#include "mpi/log.h"
#include "mpi/runtime.h"
#include "mpi/world.h"

typedef struct report_options {
    char *output;
    bool overwrite;
} report_options;

static const am_param options[] = {{"output", AM_PARAM_STRING, offsetof(report_options, output),
                                    NULL, 0, 0, NULL, "the page, *.html"},
                                   AM_OPTION_OVERWRITE(report_options),
                                   {0}};

/* A name of another kind is more likely a slip than a page. */
static int check_name(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL && strcmp(dot, ".html") == 0
               ? 0
               : am_fail(AM_E_USAGE, "report: -o %s: give a name that ends in .html", path);
}

static int tell(const am_report *report, const char *path, int64_t bytes)
{
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "output", path);
    am_json_string(&j, "job", report->job);
    am_json_string(&j, "experiment", report->experiment);
    am_json_int(&j, "runs", report->n);
    am_json_int(&j, "bytes", bytes);
    am_json_end_object(&j);
    am_info("%s: %d run%s of %s", path, report->n, report->n > 1 ? "s" : "", report->job);
    return am_result_end(&j);
}

static int run_all(const am_args *args, int *exit_status)
{
    const report_options *o = args->options;
    am_report report = {0};
    int64_t bytes = 0;
    (void)exit_status;
    int rc = check_name(o->output);
    AM_AGREE(am_world());
    if (am_world_rank() == 0) {
        AM_KEEP(am_report_open(args->positional, args->n_positional, &report));
        AM_KEEP(am_report_write(&report, o->output, o->overwrite, &bytes));
        AM_KEEP(tell(&report, o->output, bytes));
    }
    AM_AGREE(am_world());
cleanup:
    am_report_close(&report);
    return rc;
}

const am_command am_command_report = {
    .name = "report",
    .synopsis = "RUN... -o OUT.html [--overwrite]",
    .summary = "One HTML page of finished runs: tables, plots, and what they say.",
    .help = "RUN: folders of train, iterate or theory; several runs of one recipe that differ in "
            "their seed only are shown as means with standard errors. The page needs nothing else "
            "(no scripts, no network). Read by rank 0.",
    .min_positional = 1,
    .max_positional = -1,
    .options = options,
    .options_bytes = sizeof(report_options),
    .run_all = run_all,
};
