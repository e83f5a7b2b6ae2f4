/* Append-only JSON writer into a growing buffer: events, results, manifests, indexes.
 * Writing only; reading JSON is io's. Out of memory is remembered and reported by am_json_finish.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_JSONW_H
#define AM_MPI_JSONW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct am_json {
    char *text; /* owned, NUL-terminated */
    size_t length, capacity;
    bool comma;  /* the next value needs a comma before it */
    bool failed; /* out of memory */
} am_json;

/* Start with `am_json j = {0};`, end with am_json_free. `key` is NULL inside arrays and at the top.
 */
void am_json_object(am_json *j, const char *key); /* { */
void am_json_array(am_json *j, const char *key);  /* [ */
void am_json_end_object(am_json *j);
void am_json_end_array(am_json *j);
void am_json_string(am_json *j, const char *key, const char *value); /* escapes; NULL -> null */
void am_json_int(am_json *j, const char *key, int64_t value);
void am_json_real(am_json *j, const char *key,
                  double value); /* shortest text that reads back to the
                                    same double; not finite -> null */
void am_json_bool(am_json *j, const char *key, bool value);
void am_json_raw(am_json *j, const char *key, const char *json); /* text that is JSON already */
/** Append members (values with keys, added to `members` without am_json_object) to an object. */
void am_json_members(am_json *j, const am_json *members);
void am_json_newline(am_json *j); /* ends a line of JSON Lines */
/** Bytes of the valid UTF-8 sequence at `text` (NUL-terminated), 0 if it is not one. */
int am_utf8_step(const char *text);
int am_json_finish(const am_json *j); /* 0 or AM_E_NOMEM */
void am_json_free(am_json *j);

#endif
