/* A parameter sweep. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/submit/cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"

/* "KEY=V1,V2" in place. */
static int read_key(char *item, am_cases *out)
{
    char *equals = strchr(item, '='), *rest = NULL;
    const int k = out->n_keys;
    if (k == AM_CASE_KEYS || equals == NULL || equals == item || equals[1] == '\0') {
        return am_fail(AM_E_USAGE, "--sweep %s: write it as KEY=VALUE,VALUE... (up to %d keys)",
                       item, AM_CASE_KEYS);
    }
    *equals = '\0';
    out->key[k] = item;
    for (char *value = strtok_r(equals + 1, ",", &rest); value != NULL;
         value = strtok_r(NULL, ",", &rest)) {
        if (out->n_values[k] == AM_CASE_VALUES) {
            return am_fail(AM_E_USAGE, "--sweep %s: more than %d values", item, AM_CASE_VALUES);
        }
        out->value[k][out->n_values[k]++] = value;
    }
    out->n *= out->n_values[k];
    out->n_keys++;
    return out->n > 0 && out->n <= AM_CASES
               ? 0
               : am_fail(AM_E_USAGE, "--sweep makes %lld jobs: 1 to %d are possible",
                         (long long)out->n, AM_CASES);
}

int am_cases_read(const char *text, am_cases *out)
{
    char *rest = NULL;
    int rc = 0;
    *out = (am_cases){.n = 1};
    if (text == NULL) {
        return 0;
    }
    out->text = am_new((int64_t)strlen(text) + 1, 1, "the sweep");
    if (out->text == NULL) {
        return AM_E_NOMEM;
    }
    strcpy(out->text, text);
    for (char *item = strtok_r(out->text, " \t\n", &rest); rc == 0 && item != NULL;
         item = strtok_r(NULL, " \t\n", &rest)) {
        rc = read_key(item, out);
    }
    return rc == 0 && out->n_keys == 0
               ? am_fail(AM_E_USAGE, "--sweep is empty: write it as KEY=VALUE,VALUE...")
               : rc;
}

void am_cases_free(am_cases *cases)
{
    free(cases->text);
    *cases = (am_cases){0};
}

/* The last key changes fastest. */
int am_cases_set(const am_cases *cases, int64_t i, int k, char out[AM_CASE_BYTES])
{
    for (int later = cases->n_keys - 1; later > k; later--) {
        i /= cases->n_values[later];
    }
    const char *value = cases->value[k][i % cases->n_values[k]];
    int n = snprintf(out, AM_CASE_BYTES, "%s=%s", cases->key[k], value);
    return n > 0 && n < AM_CASE_BYTES ? 0 : am_fail(AM_E_USAGE, "--sweep: a value is too long");
}

int am_cases_output(const am_cases *cases, const char *output, int64_t i, char *out, size_t bytes)
{
    static const char *const suffixes[] = {".h5", ".safetensors"};
    size_t stem = strlen(output);
    while (stem > 1 && output[stem - 1] == '/') {
        stem--;
    }
    for (size_t s = 0; s < sizeof suffixes / sizeof suffixes[0]; s++) {
        const size_t length = strlen(suffixes[s]);
        if (stem > length && strncmp(output + stem - length, suffixes[s], length) == 0) {
            stem -= length;
            break;
        }
    }
    int n = cases->n == 1 ? snprintf(out, bytes, "%s", output)
                          : snprintf(out, bytes, "%.*s-%lld%s", (int)stem, output, (long long)i,
                                     output[stem] == '.' ? output + stem : "");
    return n > 0 && (size_t)n < bytes ? 0 : am_fail(AM_E_USAGE, "-o %.200s...: too long", output);
}
