/* Lines for people, the result line, events. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "mpi/error.h"
#include "mpi/clock.h"
#include "mpi/world.h"

static am_log_level level = AM_LOG_INFO;
static bool status_shown = false;
static int events_fd = -1;
static double events_start = 0;

void am_log_set_level(am_log_level new_level)
{
    level = new_level;
}

am_log_level am_log_get_level(void)
{
    return level;
}

/* mpirun hands its ranks a pipe for stderr, so look at the launcher's own stderr as well. */
static bool find_terminal(void)
{
    const char *term = getenv("TERM");
    if (term == NULL || strcmp(term, "dumb") == 0) {
        return false;
    }
    if (isatty(STDERR_FILENO)) {
        return true;
    }
    if (getenv("OMPI_COMM_WORLD_RANK") == NULL) {
        return false;
    }
    char link[64], target[64];
    (void)snprintf(link, sizeof link, "/proc/%ld/fd/2", (long)getppid());
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n <= 0) {
        return false;
    }
    target[n] = '\0';
    return strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0;
}

bool am_log_is_terminal(void)
{
    static int known = -1;
    if (known < 0) {
        known = find_terminal();
    }
    return known != 0;
}

void am_log_status(const char *text)
{
    if (am_world_rank() != 0 || (text == NULL && !status_shown)) {
        return;
    }
    (void)fprintf(stderr, "\r\033[K%s", text == NULL ? "" : text);
    (void)fflush(stderr);
    status_shown = text != NULL;
}

static void line(am_log_level at, const char *prefix, const char *format, va_list args)
{
    if (am_world_rank() != 0 || level < at) {
        return;
    }
    char text[AM_MESSAGE_BYTES + 64]; /* one write: lines of other programs do not mix in */
    (void)vsnprintf(text, sizeof text, format, args);
    am_log_status(NULL);
    (void)fprintf(stderr, "%s%s\n", prefix, text);
}

void am_info(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    line(AM_LOG_INFO, "", format, args);
    va_end(args);
}

void am_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    line(AM_LOG_WARN, "allmerge: warning: ", format, args);
    va_end(args);
}

void am_debug(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    line(AM_LOG_DEBUG, "debug: ", format, args);
    va_end(args);
}

int am_events_open(const char *path)
{
    if (am_world_rank() != 0) {
        return 0;
    }
    am_events_close();
    events_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (events_fd < 0) {
        return am_fail_errno(AM_E_CREATE, errno, "cannot open the event file %s", path);
    }
    events_start = am_seconds();
    return 0;
}

void am_events_close(void)
{
    if (events_fd >= 0 && close(events_fd) != 0) {
        am_warn("closing the event file: %s", strerror(errno));
    }
    events_fd = -1;
}

/* Whole text or an errno. */
static int write_whole(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t written = write(fd, text, n);
        if (written < 0 && errno != EINTR) {
            return errno;
        }
        if (written > 0) {
            text += written;
            n -= (size_t)written;
        }
    }
    return 0;
}

void am_event(const char *name, const am_json *members)
{
    if (events_fd < 0) {
        return;
    }
    am_json j = {0};
    am_json_object(&j, NULL);
    am_json_string(&j, "event", name);
    am_json_real(&j, "seconds", am_seconds() - events_start);
    if (members != NULL) {
        am_json_members(&j, members);
    }
    am_json_end_object(&j);
    am_json_newline(&j);
    int code = j.failed ? ENOMEM : write_whole(events_fd, j.text, j.length);
    am_json_free(&j);
    if (code != 0) { /* events are a record beside the result: warn once, go on */
        am_warn("cannot write the event file, no further events: %s", strerror(code));
        (void)close(events_fd);
        events_fd = -1;
    }
}

void am_result(const am_json *object)
{
    if (am_world_rank() != 0) {
        return;
    }
    am_log_status(NULL);
    if (am_json_finish(object) != 0 || printf("%s\n", object->text) < 0 || fflush(stdout) != 0) {
        am_warn("cannot write the result line to stdout: %s", strerror(errno));
    }
}

int am_result_end(am_json *object)
{
    const int rc = am_json_finish(object);
    if (rc == 0) {
        am_result(object);
    }
    am_json_free(object);
    return rc;
}
