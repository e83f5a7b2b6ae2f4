/* What a job is: its recipe and its inputs, as JSON text. State that an interrupted job left is
 * trusted only by the same job, and a job that differs is told in what.
 *
 *   {"allmerge": "1.0.0", "job": "merge", "recipe": ..., "inputs": [{"path": "a.h5", "bytes": 1234,
 *    "sample_xxh3": "...", "content_xxh3": "..." or "modified_ns": ...}, ...]}
 *
 * An input with a sound manifest is known by the digest of its content, another one by its size,
 * the digest of its first and last bytes and its time of modification. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_IO_COMMIT_IDENTITY_H
#define AM_IO_COMMIT_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

/** Text of a job, malloc'ed. Local, rank 0.
 * job     name of the command, with options that change the output
 * recipe  resolved recipe: JSON, or any text (is_json false), which is compared line by line
 * inputs  NULL-terminated paths, NULL: none
 * Errors: those of am_input_facts_read. */
int am_identity_make(const char *job, const char *recipe, bool is_json, const char *const *inputs,
                     char **out);

/** Compare two of them. Returns how many members differ, or an am_error code (negative); `what`
 * [bytes] lists the first few: "alpha was 0.5, is 0.25; input ft1.h5 has changed". Local, pure. */
int am_identity_compare(const char *then, const char *now, char *what, int64_t bytes);

#endif
