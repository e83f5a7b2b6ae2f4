/* The command line: which command, with which options. Parsing is local and pure, so that every
 * rank comes to the same result from the same arguments; running agrees on it first.
 *
 *   allmerge [COMMON] COMMAND [OPTIONS] [--] [POSITIONAL]...
 *
 * Options come from the command's am_param table: `--key VALUE`, `--key=VALUE`, bools `--key` and
 * `--no-key`; `_` in a key is written `-`. `-o` is `--output`. `--set KEY=VALUE` may be repeated.
 * Common: --help, --version, --quiet, --verbose, --time-left DURATION.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_CLI_H
#define AM_JOBS_CLI_H

#include "jobs/command.h"

typedef struct am_cli {
    const am_command *command; /* NULL: none was named (general help or version) */
    bool help, version, quiet, verbose;
    double time_left; /* seconds, 0: not given */
    am_args args;
} am_cli;

/** Read the arguments.
 *
 * argv     borrowed for the life of `out`, argv[0] is skipped
 * commands NULL-terminated table
 * out      overwritten; freed by am_cli_free, also after an error
 * Errors: AM_E_USAGE naming the argument (and the nearest command or option); AM_E_RECIPE for a bad
 * value; AM_E_NOMEM. Local, pure. */
int am_cli_parse(int argc, char **argv, const am_command *const *commands, am_cli *out);
void am_cli_free(am_cli *cli);

/** Parse, agree, and print help or versions, or run the command.
 *
 * Collective [am_world()]. *exit_status: status of the process when 0 is returned. Returns an
 * agreed code. */
int am_cli_run_all(int argc, char **argv, int *exit_status);

#endif
