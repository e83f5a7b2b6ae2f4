/* Agreement on codes, arguments and root-made bytes. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/agree.h"

#include <stdio.h>
#include <stdlib.h>
#include "mpi/bigcount.h"
#include "mpi/param.h"
#include "mpi/stop.h"
#include "mpi/watchdog.h"

/* Everyone knows the worst code; its rank tells everyone what it means. */
static int share_message_all(MPI_Comm comm, int rank, am_agree_code worst)
{
    int rc = 0;
    char message[AM_MESSAGE_BYTES] = "";
    if (worst.code == 0) {
        return 0;
    }
    if (rank == worst.rank) {
        (void)snprintf(message, sizeof message, "%s", am_error_message());
    }
    AM_TRY(am_mpi_code(MPI_Bcast(message, (int)sizeof message, MPI_CHAR, worst.rank, comm),
                       "MPI_Bcast"));
    am_error_set(message);
    rc = worst.code;
cleanup:
    return rc;
}

int am_agree_all(MPI_Comm comm, int code)
{
    int rc = 0;
    am_agree_code mine = {code, 0}, worst = {0, 0};
    AM_ASSERT(code <= 0);
    AM_TRY(am_mpi_code(MPI_Comm_rank(comm, &mine.rank), "MPI_Comm_rank"));
    AM_TRY(
        am_mpi_code(MPI_Allreduce(&mine, &worst, 1, MPI_2INT, MPI_MINLOC, comm), "MPI_Allreduce"));
    am_alive(NULL);
    rc = share_message_all(comm, mine.rank, worst);
cleanup:
    return rc;
}

static int stop_or(int rc)
{
    if (rc == 0 && am_stop_requested()) {
        am_error_clear();
        rc = am_fail(AM_E_STOPPED, "stop requested (%s)", am_stop_reason());
    }
    return rc;
}

int am_agree_step_all(MPI_Comm comm, int rc)
{
    return am_agree_all(comm, stop_or(rc));
}

/* ---- agreements under way ---- */

static int post_all(MPI_Comm comm, am_agree_queue *q, int rank, int code)
{
    const int64_t at = q->posted++ % AM_AGREE_AHEAD;
    q->mine[at] = (am_agree_code){code, rank};
    return am_mpi_code(
        MPI_Iallreduce(&q->mine[at], &q->worst[at], 1, MPI_2INT, MPI_MINLOC, comm, &q->request[at]),
        "MPI_Iallreduce");
}

/* Complete steps, the oldest first, until at most `most` are under way, and those that have ended
 * anyway; up to the first that has a code. */
static int complete_all(am_agree_queue *q, int64_t most, am_agree_code *worst)
{
    int ended = 1, rc = 0;
    while (worst->code == 0 && q->done < q->posted && ended) {
        MPI_Request *request = &q->request[q->done % AM_AGREE_AHEAD];
        if (q->posted - q->done > most) {
            AM_TRY(am_mpi_code(MPI_Wait(request, MPI_STATUS_IGNORE), "MPI_Wait"));
        } else {
            AM_TRY(am_mpi_code(MPI_Test(request, &ended, MPI_STATUS_IGNORE), "MPI_Test"));
        }
        if (ended) {
            *worst = q->worst[q->done++ % AM_AGREE_AHEAD];
            am_alive(NULL);
        }
    }
cleanup:
    return rc;
}

/* Every rank has seen the same step fail. Others may have gone on, as far as they can: so far go
 * all, and forget what these steps say. */
static int drain_all(MPI_Comm comm, am_agree_queue *q, int rank)
{
    const int64_t end = q->done - 1 + AM_AGREE_AHEAD;
    int rc = 0;
    while (q->done < end) {
        am_agree_code ignored = {0, 0};
        while (q->posted < end) {
            AM_TRY(post_all(comm, q, rank, 0));
        }
        AM_TRY(complete_all(q, 0, &ignored));
    }
    *q = (am_agree_queue){0};
cleanup:
    return rc;
}

static int settle_all(MPI_Comm comm, am_agree_queue *q, int rank, int64_t most)
{
    am_agree_code worst = {0, 0};
    int rc = 0;
    AM_TRY(complete_all(q, most, &worst));
    if (worst.code != 0) {
        AM_TRY(drain_all(comm, q, rank));
        rc = share_message_all(comm, rank, worst);
    }
cleanup:
    return rc;
}

int am_agree_ahead_all(MPI_Comm comm, am_agree_queue *queue, int rc)
{
    const int code = stop_or(rc);
    int rank = 0;
    AM_ASSERT(code <= 0);
    rc = 0;
    AM_TRY(am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
    AM_TRY(post_all(comm, queue, rank, code));
    rc = settle_all(comm, queue, rank, code != 0 ? 0 : AM_AGREE_AHEAD - 1);
cleanup:
    return rc;
}

int am_agree_finish_all(MPI_Comm comm, am_agree_queue *queue)
{
    int rank = 0;
    int rc = am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
    return rc != 0 ? rc : settle_all(comm, queue, rank, 0);
}

int am_same_all(MPI_Comm comm, uint64_t hash, const char *what)
{
    int rc = 0;
    const uint64_t mine[2] = {hash, ~hash}; /* max of ~x is ~min of x */
    uint64_t most[2] = {0, 0};
    AM_TRY(am_mpi_code(MPI_Allreduce(mine, most, 2, MPI_UINT64_T, MPI_MAX, comm), "MPI_Allreduce"));
    if (most[0] != ~most[1]) {
        am_error_clear();
        rc = am_fail(AM_E_BUG, "%s differs between ranks", what);
    }
cleanup:
    return rc;
}

int am_share_bytes_all(MPI_Comm comm, int root, int rc, char **bytes, int64_t *n)
{
    int rank = 0;
    char *received = NULL;
    AM_KEEP(am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
    if (rank != root) {
        *bytes = NULL;
        *n = 0;
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, root, n, (int64_t)sizeof *n));
    if (rank != root) {
        received = malloc((size_t)*n + 1);
        if (received == NULL) {
            rc = am_fail(AM_E_NOMEM, "cannot hold %s received from rank %d", am_format_bytes(*n),
                         root);
        } else {
            received[*n] = '\0';
        }
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, root, rank == root ? *bytes : received, *n));
    if (rank != root) {
        *bytes = received;
        received = NULL;
    }
cleanup:
    if (rc != 0 && rank != root) {
        *n = 0;
    }
    free(received);
    return rc;
}
