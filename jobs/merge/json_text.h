/* JSON text of sound documents, looked into and edited in place, so that numbers keep their
 * spelling and large parts are never built as objects. Local and pure. SPDX-License-Identifier:
 * BSD-3-Clause
 */
#ifndef AM_JOBS_MERGE_JSON_TEXT_H
#define AM_JOBS_MERGE_JSON_TEXT_H

/** After the string that begins at `at`. */
const char *am_json_skip_string(const char *at);
/** Value of a member at the top of the object `text`: its first character, and in *end the one
 * after it. NULL: there is none, or the text is no object. */
const char *am_json_find(const char *text, const char *key, const char **end);
/** The JSON object `text` with the value of a member at its top replaced by `value` (JSON), all
 * other bytes as they are; malloc'ed. `text` must be sound. NULL: AM_E_NOMEM. */
char *am_json_replace(const char *text, const char *key, const char *value);

#endif
