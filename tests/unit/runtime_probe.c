/* A rank program that misbehaves on request, for the script tests of mpi/runtime.
 * usage: runtime_probe MODE RANK [NUMBER]
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/log.h"
#include "mpi/progress.h"
#include "mpi/runtime.h"

static void nap(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0) {
    }
}

/* Tell the script which process is which rank. */
static int write_pid(void)
{
    char path[32];
    (void)snprintf(path, sizeof path, "pid.%d", am_world_rank());
    FILE *file = fopen(path, "w");
    if (file == NULL || fprintf(file, "%ld\n", (long)getpid()) < 0 || fclose(file) != 0) {
        return am_fail(AM_E_CREATE, "cannot write %s", path);
    }
    return 0;
}

/* Steps of a long job until something stops it. */
static int steps_all(double seconds)
{
    int rc = 0;
    double end = am_seconds() + seconds;
    AM_KEEP(write_pid());
    AM_AGREE(am_world());
    for (int go = 1; go;) {
        nap(0.02);
        am_alive("step");
        AM_TRY(am_agree_step_all(am_world(), 0));
        go = am_world_rank() == 0 && am_seconds() < end;
        AM_TRY(am_mpi_code(MPI_Bcast(&go, 1, MPI_INT, 0, am_world()), "MPI_Bcast"));
    }
cleanup:
    return rc;
}

static int progress_steps(double seconds)
{
    am_progress p;
    am_progress_start(&p, "reading", 100, "B");
    for (int i = 0; i < 100; i++) {
        nap(seconds / 100);
        am_progress_add(&p, 1);
        if (i == 50) {
            am_info("half way");
        }
    }
    am_progress_end(&p);
    return 0;
}

static int run_all(const char *mode, bool is_chosen, double number)
{
    int rc = 0;
    am_json result = {0};
    if (strcmp(mode, "fail") == 0) {
        AM_KEEP(is_chosen ? am_fail((int)number, "tensor w of a.h5 is bad") : 0);
    } else if (strcmp(mode, "bug") == 0) {
        AM_ASSERT(!is_chosen);
    } else if (strcmp(mode, "stall") == 0) {
        am_alive("reading blocks");
        nap(is_chosen ? 1000 : 0);
    } else if (strcmp(mode, "deaf") == 0) {
        AM_KEEP(write_pid());
        nap(number);
    } else if (strcmp(mode, "steps") == 0) {
        AM_TRY(steps_all(number));
    } else if (strcmp(mode, "progress") == 0) {
        AM_KEEP(progress_steps(number));
    } else {
        rc = am_fail(AM_E_USAGE, "unknown mode %s", mode);
    }
    AM_AGREE(am_world());
    am_json_object(&result, NULL);
    am_json_string(&result, "mode", mode);
    am_json_end_object(&result);
    am_result(&result);
cleanup:
    am_json_free(&result);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = am_start_all(&argc, &argv);
    if (rc == 0) {
        int chosen = argc > 2 ? atoi(argv[2]) : -1;
        rc = run_all(argc > 1 ? argv[1] : "", am_world_rank() == chosen,
                     argc > 3 ? atof(argv[3]) : 0);
    }
    return am_stop_all(rc);
}
