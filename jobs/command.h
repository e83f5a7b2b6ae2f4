/* Subcommands: one file in commands/ exports one `const am_command am_command_<file>`.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_COMMAND_H
#define AM_JOBS_COMMAND_H

#include <stddef.h>
#include "mpi/param.h"

enum { AM_MAX_OPTIONS = 64 };

typedef struct am_args {
    int n_positional;
    char **positional; /* [n] borrowed from argv */
    int n_set;
    char **set;                  /* --set KEY=VALUE, in order; borrowed */
    void *options;               /* the command's own struct, filled through its table */
    bool is_set[AM_MAX_OPTIONS]; /* of its table: given on the command line */
} am_args;

typedef struct am_command {
    const char *name;
    const char *synopsis;               /* "RECIPE -o OUT [--overwrite]" */
    const char *summary;                /* one line */
    const char *help;                   /* further text, may be NULL */
    int min_positional, max_positional; /* max -1: any number */
    const am_param *options; /* long options: --key VALUE, bools --key / --no-key; NULL: none */
    size_t options_bytes;    /* sizeof the struct */
    bool takes_set;          /* accepts --set */
    /* Collective [am_world()]. Returns an agreed am_error code; *exit_status may be set to another
     * status (diff: 1) when it returns 0. */
    int (*run_all)(const am_args *args, int *exit_status);
} am_command;

/** Refuse options that would do nothing. keys: of the table, NULL-terminated; why: "goes with ...".
 * Errors: AM_E_USAGE naming the first that was given. Local, pure. */
int am_args_refuse(const am_args *args, const am_param *options, const char *const *keys,
                   const char *why);

/* Options that several commands have: members `bool overwrite` and `bool json` of their struct. */
#define AM_OPTION_OVERWRITE(options)                                                               \
    {                                                                                              \
        "overwrite", AM_PARAM_BOOL, offsetof(options, overwrite), "false", 0, 0, NULL,             \
            "replace an existing output"                                                           \
    }
#define AM_OPTION_JSON(options)                                                                    \
    {                                                                                              \
        "json", AM_PARAM_BOOL, offsetof(options, json), "false", 0, 0, NULL,                       \
            "one JSON line instead of text"                                                        \
    }

extern const am_command *const am_command_table[]; /* NULL-terminated */

#endif
