/* What it costs to open a checkpoint on many ranks: seconds, and who reads how much.
 *
 *   mpirun -n R bench_open_ckpt CHECKPOINT [TIMES]
 *
 * One JSON line. Bytes and calls are the kernel's counters of the process (/proc/self/io), so that
 * nothing is left out; those of rank 0 and the largest of the others.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "io/checkpoint/checkpoint.h"
#include "mpi/agree.h"
#include "mpi/runtime.h"

typedef struct counters {
    long long bytes, calls;
} counters;

static counters read_so_far(void)
{
    counters c = {-1, -1};
    char line[128];
    FILE *f = fopen("/proc/self/io", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        (void)sscanf(line, "rchar: %lld", &c.bytes);
        (void)sscanf(line, "syscr: %lld", &c.calls);
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return c;
}

/* Open and close once; seconds until the slowest rank has it. */
static int once_all(const char *path, double *seconds, int64_t *tensors)
{
    am_ckpt *ckpt = NULL;
    double mine = 0;
    (void)MPI_Barrier(am_world());
    const double start = am_seconds();
    int rc = am_ckpt_open_all(am_world(), path, &ckpt);
    mine = am_seconds() - start;
    if (rc == 0) {
        *tensors = am_ckpt_tensors(ckpt)->n;
        am_ckpt_close(&ckpt);
        rc = am_agree_all(am_world(), MPI_Allreduce(&mine, seconds, 1, MPI_DOUBLE, MPI_MAX,
                                                    am_world()) == MPI_SUCCESS
                                          ? 0
                                          : AM_E_BUG);
    }
    return rc;
}

static int measure_all(const char *path, int times)
{
    double best = 1e30, seconds = 0;
    int64_t tensors = 0;
    const counters before = read_so_far(), probe = read_so_far(); /* the cost of looking */
    int rc = 0;
    for (int i = 0; rc == 0 && i < times; i++) {
        rc = once_all(path, &seconds, &tensors);
        best = seconds < best ? seconds : best;
    }
    const counters after = read_so_far();
    long long mine[2] = {after.bytes - probe.bytes - (probe.bytes - before.bytes),
                         after.calls - probe.calls - (probe.calls - before.calls)};
    long long others[2] = {0, 0}, root[2] = {mine[0], mine[1]};
    if (am_world_rank() == 0) {
        mine[0] = mine[1] = 0;
    }
    if (rc == 0 &&
        MPI_Reduce(mine, others, 2, MPI_LONG_LONG, MPI_MAX, 0, am_world()) != MPI_SUCCESS) {
        rc = AM_E_BUG;
    }
    if (rc == 0 && am_world_rank() == 0) {
        printf("{\"tensors\": %" PRId64 ", \"ranks\": %d, \"times\": %d, \"open_seconds\": %.6f, "
               "\"root\": {\"read_bytes\": %lld, \"read_calls\": %lld}, "
               "\"others\": {\"read_bytes\": %lld, \"read_calls\": %lld}}\n",
               tensors, am_world_size(), times, best, root[0], root[1], others[0], others[1]);
    }
    return rc;
}

int main(int argc, char **argv)
{
    const int times = argc > 2 ? atoi(argv[2]) : 5;
    int rc = am_start_all(&argc, &argv);
    if (rc == 0 && (argc < 2 || times < 1)) {
        rc = am_fail(AM_E_USAGE, "usage: bench_open_ckpt CHECKPOINT [TIMES]");
    }
    if (rc == 0) {
        rc = measure_all(argv[1], times);
    }
    return am_stop_all(rc);
}
