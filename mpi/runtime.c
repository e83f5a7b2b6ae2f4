/* Start, stop and the abort of last resort: the only file that may end the process.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/runtime.h"

#include <execinfo.h>
#include <fenv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/log.h"

enum { EXIT_BUG = 70, EXIT_STALLED = 124, ABORT_GRACE_SECONDS = 10, FORWARD_SECONDS = 1 };

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
            line, condition, am_world_rank());
    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
    end_job(EXIT_BUG);
}

static _Noreturn void end_stalled_job(double idle, const char *phase)
{
    char host[256] = "?";
    (void)gethostname(host, sizeof host - 1);
    dprintf(STDERR_FILENO,
            "allmerge: error: stalled: rank %d on %s has not moved for %.0f s in phase \"%s\"; "
            "ending the job (AM_STALL_SECONDS sets the limit, 0 turns it off)\n",
            am_world_rank(), host, idle, phase);
    (void)sleep(FORWARD_SECONDS); /* a launcher that is told to abort drops what is on its way */
    end_job(EXIT_STALLED);
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
    for (size_t i = 0; am_world_size() == 1 && i < sizeof hints / sizeof hints[0]; i++) {
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
    AM_TRY(am_world_open_all());
    if (provided < MPI_THREAD_FUNNELED) {
        rc =
            am_fail(AM_E_USAGE, "%s has no thread support (MPI_THREAD_FUNNELED)", am_mpi_version());
    }
    if (fesetenv(FE_DFL_ENV) != 0) { /* round to nearest, no flush to zero */
        AM_KEEP(am_fail(AM_E_BUG, "cannot set the floating-point environment"));
    }
    void *frames[1]; /* loads the unwinder now, so that am_bug need not allocate */
    (void)backtrace(frames, 1);
    AM_KEEP(am_stop_install());
    AM_KEEP(am_watchdog_start(end_stalled_job));
    AM_AGREE(am_world());
    warn_if_alone();
cleanup:
    return rc;
}

int am_stop_all(int rc)
{
    const char *message = am_error_message();
    if (rc != 0 && am_world_rank() == 0) {
        am_log_status(NULL);
        (void)fprintf(stderr, "allmerge: %s: %s (%s)\n", rc == AM_E_STOPPED ? "stopped" : "error",
                      message[0] != '\0' ? message : "no message", am_error_text(rc));
    }
    am_events_close();
    (void)fflush(NULL);
    if (am_world() != MPI_COMM_NULL) {
        (void)MPI_Barrier(am_world()); /* while the watchdog still looks on */
        am_stop_ignore();
        am_world_close_all();
    }
    am_watchdog_stop();
    (void)MPI_Finalize();
    return am_error_exit_code(rc);
}
