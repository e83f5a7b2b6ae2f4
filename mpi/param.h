/* Typed parameter tables: one table serves recipe keys, --set, command-line flags, help, defaults,
 * ranges and documentation. An unknown key is an error that names the nearest one.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_PARAM_H
#define AM_MPI_PARAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "mpi/jsonw.h"

typedef enum am_param_type {
    AM_PARAM_BOOL,   /* bool:    true false yes no on off (YAML 1.1) */
    AM_PARAM_INT,    /* int64_t: decimal, 0x */
    AM_PARAM_REAL,   /* double:  finite; "1e-3" accepted */
    AM_PARAM_BYTES,  /* int64_t: 512MiB, 4GB, 65536 */
    AM_PARAM_STRING, /* char *:  owned by the struct, am_param_free */
    AM_PARAM_CHOICE, /* int:     index in `choices` ("a|b|c") */
    AM_PARAM_DTYPE   /* am_dtype */
} am_param_type;

typedef struct am_param {
    const char *key;
    am_param_type type;
    size_t offset;        /* offsetof(struct, member) */
    const char *fallback; /* default as text; NULL: required; "" on a string: absent (NULL) */
    double low, high;     /* inclusive range of INT, REAL, BYTES; both 0: unbounded */
    const char *choices;
    const char *help; /* one line, with the unit */
} am_param;           /* a table ends with a NULL key */

/** Set all defaults. Errors: AM_E_BUG for a bad table. */
int am_param_defaults(const am_param *table, void *object);
/** Set one key from text. where: "file:line:column" or "--set", for messages.
 * Errors: AM_E_RECIPE: unknown key (names the nearest), wrong type, out of range (says the range).
 */
int am_param_set(const am_param *table, void *object, const char *key, const char *text,
                 const char *where);
/** Errors AM_E_RECIPE listing every required key for which is_set[i] is false. */
int am_param_require(const am_param *table, const bool *is_set, const char *where);
/** Index of key in the table, -1 if absent. */
int am_param_find(const am_param *table, const char *key);
void am_param_free(const am_param *table, void *object);
void am_param_print_json(const am_param *table, const void *object, am_json *members);
/** Help text: one line a parameter, key, type, range, default, meaning. To `out` (FILE *). */
void am_param_help(const am_param *table, void *out);

/** Nearest of `names` (NULL-terminated) to `word` by Damerau-Levenshtein distance, NULL if none is
 * within max(2, length/3). */
const char *am_nearest(const char *const *names, const char *word);
/** Parse sizes such as "512MiB". Errors: AM_E_USAGE. */
int am_parse_bytes(const char *text, int64_t *bytes);
/** "1.50 GiB" into a static per-thread buffer (4 in rotation). */
const char *am_format_bytes(int64_t bytes);

#endif
