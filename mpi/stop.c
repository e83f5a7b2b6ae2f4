/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/stop.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include "mpi/clock.h"
#include "mpi/error.h"

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

bool am_stop_requested(void)
{
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
        return "time limit or halt file";
    }
}

int am_stop_install(void)
{
    static const int requests[] = {SIGTERM, SIGINT, SIGUSR1}, ignored[] = {SIGXFSZ, SIGPIPE};
    struct sigaction action = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};
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
