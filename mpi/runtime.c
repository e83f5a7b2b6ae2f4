/* Start, stop, stop requests, watchdog and the abort of last resort.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/runtime.h"

#include <errno.h>
#include <execinfo.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/log.h"

enum { EXIT_BUG = 70, EXIT_STALLED = 124, ABORT_GRACE_SECONDS = 10 };

static MPI_Comm world = MPI_COMM_NULL;
static int world_rank = 0, world_size = 1;

double am_seconds(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        return 0;
    }
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

MPI_Comm am_world(void)
{
    return world;
}

int am_world_rank(void)
{
    return world_rank;
}

int am_world_size(void)
{
    return world_size;
}

const char *am_mpi_version(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) {
        text[0] = '\0';
    }
    text[strcspn(text, ",\n")] = '\0';
    return text;
}

/* ---- the end of last resort ---- */

static void on_alarm(int number)
{
    _exit(number == SIGALRM ? EXIT_STALLED : EXIT_BUG);
}

/* End all ranks now. MPI_Abort itself may hang on a broken machine: then this rank exits alone and
 * the launcher ends the others. */
static _Noreturn void end_job(int exit_code)
{
    int started = 0, finished = 0;
    struct sigaction action = {.sa_handler = on_alarm};
    (void)sigaction(SIGALRM, &action, NULL);
    alarm(ABORT_GRACE_SECONDS);
    if (MPI_Initialized(&started) == MPI_SUCCESS && started &&
        MPI_Finalized(&finished) == MPI_SUCCESS && !finished) {
        (void)MPI_Abort(MPI_COMM_WORLD, exit_code);
    }
    _exit(exit_code);
}

_Noreturn void am_bug(const char *file, int line, const char *condition)
{
    void *frames[64];
    dprintf(STDERR_FILENO,
            "allmerge: bug: %s:%d: `%s` does not hold on rank %d (please report this)\n", file,
            line, condition, world_rank);
    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
    end_job(EXIT_BUG);
}

/* ---- stop requests ---- */

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

static int install_handlers(void)
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

/* ---- watchdog ---- */

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool running, stop;              /* under lock */
    _Atomic int64_t limit_ms, beats; /* 0 ms: off */
    _Atomic(const char *) phase;
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

static _Noreturn void report_stall(double idle)
{
    char host[256] = "?";
    (void)gethostname(host, sizeof host - 1);
    dprintf(STDERR_FILENO,
            "allmerge: error: stalled: rank %d on %s has not moved for %.0f s in phase \"%s\"; "
            "ending the job (AM_STALL_SECONDS sets the limit, 0 turns it off)\n",
            world_rank, host, idle, atomic_load(&dog.phase));
    end_job(EXIT_STALLED);
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
            report_stall(idle);
        }
    }
    (void)pthread_mutex_unlock(&dog.lock);
    return unused;
}

static int watchdog_start(void)
{
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

static void watchdog_stop(void)
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

/* ---- start and stop ---- */

/* One rank although the surroundings speak of several: nearly always a launcher that does not
 * match the MPI library, and every copy would do the whole job. */
static void warn_if_alone(void)
{
    static const struct {
        const char *size, *rank;
    } hints[] = {{"SLURM_NTASKS", "SLURM_PROCID"},
                 {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                 {"PMI_SIZE", "PMI_RANK"}};
    for (size_t i = 0; world_size == 1 && i < sizeof hints / sizeof hints[0]; i++) {
        const char *size = getenv(hints[i].size), *rank = getenv(hints[i].rank);
        if (size != NULL && atol(size) > 1 && (rank == NULL || atol(rank) == 0)) {
            am_warn("running as one rank although %s=%s: start it with the mpirun of %s, or with "
                    "srun --mpi=pmix if that library was built with PMIx",
                    hints[i].size, size, am_mpi_version());
            return;
        }
    }
}

int am_start_all(int *argc, char ***argv)
{
    int rc = 0, provided = 0;
    AM_TRY(am_mpi_code(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided),
                       "MPI_Init_thread"));
    AM_TRY(am_mpi_code(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup"));
    AM_TRY(am_mpi_code(MPI_Comm_rank(world, &world_rank), "MPI_Comm_rank"));
    AM_TRY(am_mpi_code(MPI_Comm_size(world, &world_size), "MPI_Comm_size"));
    if (provided < MPI_THREAD_FUNNELED) {
        rc =
            am_fail(AM_E_USAGE, "%s has no thread support (MPI_THREAD_FUNNELED)", am_mpi_version());
    }
    if (fesetenv(FE_DFL_ENV) != 0) { /* round to nearest, no flush to zero */
        AM_KEEP(am_fail(AM_E_BUG, "cannot set the floating-point environment"));
    }
    void *frames[1]; /* loads the unwinder now, so that am_bug need not allocate */
    (void)backtrace(frames, 1);
    AM_KEEP(install_handlers());
    AM_KEEP(watchdog_start());
    AM_AGREE(world);
    warn_if_alone();
cleanup:
    return rc;
}

/* From here on every rank ends by itself. mpirun sends SIGTERM to the others when the first one
 * has returned an error: it must not take a second signal for an order to die without a code. */
static void ignore_stop_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
}

int am_stop_all(int rc)
{
    const char *message = am_error_message();
    if (rc != 0 && world_rank == 0) {
        am_log_status(NULL);
        (void)fprintf(stderr, "allmerge: %s: %s (%s)\n", rc == AM_E_STOPPED ? "stopped" : "error",
                      message[0] != '\0' ? message : "no message", am_error_text(rc));
    }
    am_events_close();
    (void)fflush(NULL);
    if (world != MPI_COMM_NULL) {
        (void)MPI_Barrier(world); /* while the watchdog still looks on */
        ignore_stop_signals();
        (void)MPI_Comm_free(&world);
    }
    watchdog_stop();
    (void)MPI_Finalize();
    return am_error_exit_code(rc);
}
