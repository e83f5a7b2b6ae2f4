/* Error codes, the per-thread message slot and the macros that every function uses.
 * Not here: agreement between ranks (mpi/agree.h) and process exit (mpi/runtime.h).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_ERROR_H
#define AM_MPI_ERROR_H

/* X(name, value, process exit code, text); the exit codes are listed in README.md. */
#define AM_ERROR_LIST(X)                                                                           \
    X(OK, 0, 0, "ok")                                                                              \
    X(E_USAGE, -1, 2, "usage")                                                                     \
    X(E_RECIPE, -2, 2, "recipe")                                                                   \
    X(E_STOPPED, -3, 75, "stopped at a safe point, run me again")                                  \
    X(E_DATA, -4, 65, "bad data")                                                                  \
    X(E_NOINPUT, -5, 66, "input missing")                                                          \
    X(E_NUMERIC, -6, 76, "numerical failure")                                                      \
    X(E_CREATE, -7, 73, "cannot create the output")                                                \
    X(E_IO, -8, 74, "input/output error")                                                          \
    X(E_NOMEM, -9, 71, "out of memory or resources")                                               \
    X(E_STALLED, -10, 124, "stalled")                                                              \
    X(E_BUG, -11, 70, "internal error")

#define AM_ERROR_ENUM(name, value, exit_code, text) AM_##name = value,
typedef enum am_error { AM_ERROR_LIST(AM_ERROR_ENUM) } am_error;
#undef AM_ERROR_ENUM

enum { AM_MESSAGE_BYTES = 4096 };

/** Record why something failed and return `code`.
 *
 * The slot (one per thread, AM_MESSAGE_BYTES, no allocation) keeps the FIRST message until
 * am_error_clear(): a caller that adds nothing new may call am_fail freely.
 * The text names the file, tensor or key and says what to do; no trailing newline or full stop.
 * code  one of AM_E_*  */
int am_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** The same for a failed system call: appends ": " and strerror(errno_value). */
int am_fail_errno(int code, int errno_value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** The message of the first failure since the last clear; "" when there is none. */
const char *am_error_message(void);

/** Put `message` in the slot in place of what is there (agreement uses it; truncates). */
void am_error_set(const char *message);

/** Forget the message: for a caller that handles a failure itself. */
void am_error_clear(void);

/** Process exit code of an error code, 70 for an unknown one. */
int am_error_exit_code(int code);

/** Short text of an error code. */
const char *am_error_text(int code);

/* AM_TRY needs `int rc` and a label `cleanup:` in the function. */
#define AM_TRY(expression)                                                                         \
    do {                                                                                           \
        rc = (expression);                                                                         \
        if (rc != 0) {                                                                             \
            goto cleanup;                                                                          \
        }                                                                                          \
    } while (0)

/* Keep the first error in `rc`, go on: for the local steps before an agreement. The expression is
 * not evaluated once an error is kept. */
#define AM_KEEP(expression)                                                                        \
    do {                                                                                           \
        if (rc == 0) {                                                                             \
            rc = (expression);                                                                     \
        }                                                                                          \
    } while (0)

/* A bug of ours: message, backtrace, abort of all ranks. Never for input. Kept in every build. */
#define AM_ASSERT(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            am_bug(__FILE__, __LINE__, #condition);                                                \
        }                                                                                          \
    } while (0)
_Noreturn void am_bug(const char *file, int line, const char *condition);

#endif
