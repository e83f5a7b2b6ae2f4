/* A parameter sweep: every combination of the values of some keys. Pure.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_SUBMIT_CASES_H
#define AM_JOBS_SUBMIT_CASES_H

#include <stddef.h>
#include <stdint.h>

enum { AM_CASE_KEYS = 8, AM_CASE_VALUES = 256, AM_CASES = 1000, AM_CASE_BYTES = 1024 };

typedef struct am_cases {
    char *text; /* owned; keys and values point into it */
    int n_keys;
    const char *key[AM_CASE_KEYS];
    int n_values[AM_CASE_KEYS];
    const char *value[AM_CASE_KEYS][AM_CASE_VALUES];
    int64_t n; /* combinations; 1 without a key */
} am_cases;

/** Read "KEY=V1,V2 KEY=V1,..." (NULL: one case, nothing to set).
 * out: freed by am_cases_free, also after an error. Errors: AM_E_USAGE; AM_E_NOMEM. */
int am_cases_read(const char *text, am_cases *out);
void am_cases_free(am_cases *cases);
/** "KEY=VALUE" of key k in case i, as --set takes it. Errors: AM_E_USAGE too long. */
int am_cases_set(const am_cases *cases, int64_t i, int k, char out[AM_CASE_BYTES]);
/** Output of case i: "-i" before the suffix; `output` itself when there is one case.
 * Errors: AM_E_USAGE too long. */
int am_cases_output(const am_cases *cases, const char *output, int64_t i, char *out, size_t bytes);

#endif
