/* A list of complaints for one message. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/complaints.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { AM_MAX_LISTED = 20 };

void am_complain(am_complaints *c, const char *format, ...)
{
    if (c->n++ >= AM_MAX_LISTED || c->used + 200 >= sizeof c->text) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    c->text[c->used++] = '\n';
    c->text[c->used++] = ' ';
    c->text[c->used++] = ' ';
    const size_t room = sizeof c->text - 64 - c->used;
    int n = vsnprintf(c->text + c->used, room, format, arguments);
    va_end(arguments);
    c->used += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

int am_complaints_fail(const am_complaints *c, const char *title)
{
    if (c->n == 0) {
        return 0;
    }
    return c->n > AM_MAX_LISTED
               ? am_fail(AM_E_DATA, "%s (%" PRId64 " in all):%s\n  ...", title, c->n, c->text)
               : am_fail(AM_E_DATA, "%s (%" PRId64 "):%s", title, c->n, c->text);
}
