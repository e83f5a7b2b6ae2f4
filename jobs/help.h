/* Help and version texts, 80 columns, from the command and parameter tables.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_HELP_H
#define AM_JOBS_HELP_H

#include <stdio.h>
#include "jobs/command.h"

enum { AM_HELP_COLUMNS = 80 };

/** Write `text` word-wrapped to AM_HELP_COLUMNS. The first line starts at column `at` (what is
 * already written), further lines and those after a newline in `text` at column `indent`. */
void am_help_wrap(FILE *out, int at, int indent, const char *text);

/** The list of commands and common options. */
void am_help_general(FILE *out, const am_command *const *commands);
/** Synopsis, text, options. */
void am_help_command(FILE *out, const am_command *command);
/** Versions of allmerge and of the libraries it runs on. */
void am_help_version(FILE *out);

#endif
