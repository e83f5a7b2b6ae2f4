/* The message slot and the table of codes. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char slot[AM_MESSAGE_BYTES];

static const struct {
    int code, exit_code;
    const char *text;
} codes[] = {
#define AM_ERROR_ROW(name, value, exit_code, text) {value, exit_code, text},
    AM_ERROR_LIST(AM_ERROR_ROW)
#undef AM_ERROR_ROW
};

static const char unknown_text[] = "unknown error code";

int am_fail(int code, const char *format, ...)
{
    if (slot[0] == '\0') {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(slot, sizeof slot, format, args);
        va_end(args);
    }
    return code;
}

int am_fail_errno(int code, int errno_value, const char *format, ...)
{
    if (slot[0] == '\0') {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(slot, sizeof slot, format, args);
        va_end(args);
        size_t length = strlen(slot);
        char reason[256]; /* GNU strerror_r: the text may be static and not in `reason` */
        (void)snprintf(slot + length, sizeof slot - length, ": %s",
                       strerror_r(errno_value, reason, sizeof reason));
    }
    return code;
}

const char *am_error_message(void)
{
    return slot;
}

void am_error_set(const char *message)
{
    (void)snprintf(slot, sizeof slot, "%s", message);
}

void am_error_clear(void)
{
    slot[0] = '\0';
}

int am_error_exit_code(int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == code) {
            return codes[i].exit_code;
        }
    }
    return 70;
}

const char *am_error_text(int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == code) {
            return codes[i].text;
        }
    }
    return unknown_text;
}
