/* What a run says: text for people on stderr (rank 0), one JSON line on stdout for programs, and
 * events.jsonl. Every number carries its unit in its key or text.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_LOG_H
#define AM_MPI_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include "mpi/jsonw.h"

typedef enum am_log_level { AM_LOG_QUIET, AM_LOG_WARN, AM_LOG_INFO, AM_LOG_DEBUG } am_log_level;

void am_log_set_level(am_log_level level);
am_log_level am_log_get_level(void);

/** True if stderr, or that of the launcher on this node, is a terminal that can redraw a line. */
bool am_log_is_terminal(void);
/** Redraw the status line of a terminal (NULL: erase it); lines for people appear above it. */
void am_log_status(const char *text);

/** A line for people, from rank 0 only (other ranks: nothing). No newline in `format`. */
void am_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void am_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void am_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Open PATH for events (append), on rank 0; other ranks do nothing and succeed.
 * Errors: AM_E_CREATE. Local: agree after it. */
int am_events_open(const char *path);
void am_events_close(void);

/** Write one event line {"event": name, "seconds": since start, ...members}.
 * members  an am_json to which values with keys were added without am_json_object, or NULL. */
void am_event(const char *name, const am_json *members);

/** The one JSON line of a command, on stdout, rank 0 only. */
void am_result(const am_json *object);
/** End the object, print it as the result, and free it. Errors: AM_E_NOMEM. Local. */
int am_result_end(am_json *object);

#endif
