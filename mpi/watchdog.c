/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include "mpi/clock.h"
#include "mpi/error.h"

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool running, stop;              /* under lock */
    _Atomic int64_t limit_ms, beats; /* 0 ms: off */
    _Atomic(const char *) phase;
    void (*on_stall)(double idle_seconds, const char *phase);
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER, .limit_ms = 600000, .phase = "start"};

void am_alive(const char *phase)
{
    if (phase != NULL) {
        atomic_store_explicit(&dog.phase, phase, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&dog.beats, 1, memory_order_relaxed);
}

void am_watchdog_set(double seconds)
{
    AM_ASSERT(seconds >= 0 && seconds < 1e12);
    atomic_store(&dog.limit_ms, (int64_t)(seconds * 1000));
    am_alive(NULL);
}

void am_watchdog_at_least(double seconds)
{
    const double limit = 1e-3 * (double)atomic_load(&dog.limit_ms);
    if (limit > 0 && seconds > limit) {
        am_watchdog_set(seconds);
    }
}

/* Sleeps of at most a second. Each counts for at most twice its plan, so that a job that was
 * suspended as a whole (SIGSTOP, a laptop lid) is not taken for a stalled one. */
static void *watch(void *unused)
{
    int64_t seen = -1;
    double idle = 0, last = am_seconds();
    (void)pthread_mutex_lock(&dog.lock);
    while (!dog.stop) {
        double limit = 1e-3 * (double)atomic_load(&dog.limit_ms);
        double nap = limit > 0 && limit < 4 ? limit / 4 : 1;
        double until = am_seconds() + nap;
        struct timespec deadline = {.tv_sec = (time_t)until,
                                    .tv_nsec = (long)((until - (double)(time_t)until) * 1e9)};
        (void)pthread_cond_timedwait(&dog.wake, &dog.lock, &deadline);
        double now = am_seconds(), slept = now - last;
        last = now;
        int64_t beats = atomic_load(&dog.beats);
        if (beats != seen) {
            seen = beats;
            idle = 0;
        } else {
            idle += slept < 2 * nap ? slept : 2 * nap;
        }
        if (limit > 0 && idle > limit && !dog.stop) {
            dog.on_stall(idle, atomic_load(&dog.phase));
        }
    }
    (void)pthread_mutex_unlock(&dog.lock);
    return unused;
}

int am_watchdog_start(void (*on_stall)(double idle_seconds, const char *phase))
{
    dog.on_stall = on_stall;
    const char *text = getenv("AM_STALL_SECONDS");
    if (text != NULL) {
        char *end = NULL;
        double seconds = strtod(text, &end);
        if (end == text || *end != '\0' || !(seconds >= 0 && seconds < 1e12)) {
            return am_fail(AM_E_USAGE, "AM_STALL_SECONDS=%s is not a number of seconds >= 0", text);
        }
        am_watchdog_set(seconds);
    }
    pthread_condattr_t attributes;
    sigset_t all, before;
    int code = pthread_condattr_init(&attributes);
    if (code == 0) {
        code = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    }
    if (code == 0) {
        code = pthread_cond_init(&dog.wake, &attributes);
    }
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals go to the main thread */
    if (code == 0) {
        code = pthread_create(&dog.thread, NULL, watch, NULL);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        return am_fail_errno(AM_E_NOMEM, code, "cannot start the watchdog thread");
    }
    dog.running = true;
    return 0;
}

void am_watchdog_stop(void)
{
    if (!dog.running) {
        return;
    }
    (void)pthread_mutex_lock(&dog.lock);
    dog.stop = true;
    (void)pthread_cond_signal(&dog.wake);
    (void)pthread_mutex_unlock(&dog.lock);
    (void)pthread_join(dog.thread, NULL);
    dog.running = false;
}
