/* One background thread that runs small I/O jobs in the order of their submission: read-ahead and
 * write-behind. Jobs make no MPI and no HDF5 calls. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_WORKER_H
#define AM_IO_WORKER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_worker am_worker;

/* A job lives in its owner's memory until it was waited for. */
typedef struct am_work {
    int (*run)(struct am_work *work); /* on the worker; returns an am_error code */
    struct am_work *next;
    bool queued;        /* submitted and not yet finished */
    int rc;             /* result, valid once not queued */
    int64_t progress;   /* see am_worker_step */
    char message[1024]; /* of a failure */
} am_work;

/** Start the thread, all signals blocked in it. Errors: AM_E_NOMEM. */
int am_worker_start(am_worker **out);
void am_worker_submit(am_worker *worker, am_work *work);
/** Called by a running job: `progress` units are done; wakes am_worker_wait_for. */
void am_worker_step(am_worker *worker, am_work *work, int64_t progress);
/** Wait until the job has made that much progress or has ended. */
void am_worker_wait_for(am_worker *worker, am_work *work, int64_t progress);
/** Wait for the end and return the job's code; on failure its message is put in the caller's
 * slot. A job that was never submitted returns its rc at once. */
int am_worker_wait(am_worker *worker, am_work *work);
/** Finish all jobs and end the thread; accepts a pointer to NULL. */
void am_worker_stop(am_worker **worker);

#endif
