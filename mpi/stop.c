/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/stop.h"

#include <errno.h>
#include <signal.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "mpi/clock.h"
#include "mpi/error.h"
#include "mpi/world.h"

/* Limits that this rank looks at itself, in am_stop_requested. */
static struct {
    double deadline; /* 0: none */
    double next;     /* the next look at the halt file */
    bool is_late, is_halted;
    char halt[4096];   /* "": none */
    char reason[4224]; /* text of is_halted */
} limits;

static volatile sig_atomic_t stop_flag = 0, stop_signal = 0;
static double stop_seconds = 0; /* written once, by the handler of the first signal */

/* The first signal is a request. A second TERM or INT ends the process at once, unless it follows
 * within a second: a terminal and a launcher often deliver one request twice. Nothing is left
 * half-written then, because outputs appear by rename. */
static void on_stop_signal(int number)
{
    int saved = errno;
    if (stop_signal == 0) {
        stop_signal = number;
        stop_seconds = am_seconds();
    } else if (number != SIGUSR1 && am_seconds() - stop_seconds > 1.0) {
        (void)signal(number, SIG_DFL);
        (void)raise(number);
    }
    stop_flag = 1;
    errno = saved;
}

/* Thousands of ranks must not ask a file system for the same name every second. */
static double halt_interval(void)
{
    return 1.0 + am_world_size() / 64.0;
}

static void look_at_limits(void)
{
    const double now = am_seconds();
    if (limits.deadline > 0 && now >= limits.deadline) {
        limits.is_late = true;
        stop_flag = 1;
    } else if (limits.halt[0] != '\0' && now >= limits.next) {
        limits.next = now + halt_interval();
        limits.is_halted = access(limits.halt, F_OK) == 0;
        stop_flag = limits.is_halted ? 1 : stop_flag;
    }
}

bool am_stop_requested(void)
{
    if (stop_flag == 0) {
        look_at_limits();
    }
    return stop_flag != 0;
}

void am_request_stop(void)
{
    stop_flag = 1;
}

const char *am_stop_reason(void)
{
    switch (stop_signal) {
    case SIGTERM:
        return "SIGTERM";
    case SIGINT:
        return "SIGINT";
    case SIGUSR1:
        return "SIGUSR1";
    default:
        return limits.is_late ? "the time limit" : limits.is_halted ? limits.reason : "a request";
    }
}

void am_stop_after(double seconds)
{
    const double margin =
        0.1 * seconds < AM_STOP_MARGIN_SECONDS ? 0.1 * seconds : AM_STOP_MARGIN_SECONDS;
    limits.deadline = am_seconds() + (seconds > 0 ? seconds - margin : 0);
}

int am_stop_on_file(const char *path)
{
    limits.halt[0] = '\0';
    if (path == NULL) {
        return 0;
    }
    if (strlen(path) >= sizeof limits.halt) {
        return am_fail(AM_E_CREATE, "the path of the halt file is too long: %.200s...", path);
    }
    if (access(path, F_OK) == 0) {
        return am_fail(AM_E_CREATE, "%s asks to stop: remove it to go on", path);
    }
    (void)snprintf(limits.halt, sizeof limits.halt, "%s", path);
    (void)snprintf(limits.reason, sizeof limits.reason, "the halt file %s: remove it to go on",
                   path);
    limits.next = am_seconds() + halt_interval();
    return 0;
}

/* D-HH:MM:SS, HH:MM:SS or MM:SS: parts of 60, days of 24 hours in front. */
static bool parse_clock(const char *text, double *seconds)
{
    double days = 0, sum = 0;
    int parts = 0;
    char *end = NULL;
    const char *dash = strchr(text, '-');
    if (dash != NULL) {
        days = (double)strtol(text, &end, 10);
        if (end != dash || dash == text) {
            return false;
        }
        text = dash + 1;
    }
    for (bool more = true; more; parts++) {
        if (*text < '0' || *text > '9' || parts == 3) {
            return false;
        }
        const long part = strtol(text, &end, 10);
        sum = 60 * sum + (double)part;
        if (parts > 0 && part > 59) {
            return false;
        }
        more = *end == ':';
        text = end + more;
    }
    *seconds = 86400 * days + sum;
    return *end == '\0' && days >= 0 && (dash == NULL || parts == 3);
}

int am_parse_duration(const char *text, double *seconds)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}};
    char *end = NULL;
    if (strchr(text, ':') != NULL) {
        if (parse_clock(text, seconds)) {
            return 0;
        }
    } else if (*text >= '0' && *text <= '9') {
        const double number = strtod(text, &end);
        for (size_t i = 0; isfinite(number) && i < sizeof units / sizeof units[0]; i++) {
            if (strcmp(end, units[i].unit) == 0) {
                *seconds = number * units[i].seconds;
                return 0;
            }
        }
    }
    return am_fail(AM_E_USAGE, "'%s' is not a duration such as 90s, 30m, 1.5h, 2d or 12:00:00",
                   text);
}

/* Newer versions of Slurm tell a job when it will end, as seconds since 1970. */
static void take_slurm_limit(void)
{
    const char *text = getenv("SLURM_JOB_END_TIME");
    char *end = NULL;
    const double at = text != NULL ? strtod(text, &end) : 0;
    struct timespec now;
    if (text != NULL && end != text && *end == '\0' && isfinite(at) &&
        clock_gettime(CLOCK_REALTIME, &now) == 0 && at > (double)now.tv_sec) {
        am_stop_after(at - (double)now.tv_sec);
    }
}

int am_stop_install(void)
{
    static const int requests[] = {SIGTERM, SIGINT, SIGUSR1}, ignored[] = {SIGXFSZ, SIGPIPE};
    struct sigaction action = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};
    take_slurm_limit();
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        if (sigaction(requests[i], &action, NULL) != 0) {
            return am_fail_errno(AM_E_BUG, errno, "cannot handle signal %d", requests[i]);
        }
    }
    action = (struct sigaction){.sa_handler = SIG_IGN};
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++) {
        if (sigaction(ignored[i], &action, NULL) != 0) {
            return am_fail_errno(AM_E_BUG, errno, "cannot ignore signal %d", ignored[i]);
        }
    }
    return 0;
}

void am_stop_ignore(void)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
}
