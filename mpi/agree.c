/* Agreement on codes, arguments and root-made bytes. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/agree.h"

#include <stdio.h>
#include <stdlib.h>
#include "mpi/bigcount.h"
#include "mpi/param.h"
#include "mpi/stop.h"
#include "mpi/watchdog.h"

int am_agree_all(MPI_Comm comm, int code)
{
    int rc = 0;
    struct {
        int code, rank;
    } mine = {code, 0}, worst = {0, 0};
    AM_ASSERT(code <= 0);
    AM_TRY(am_mpi_code(MPI_Comm_rank(comm, &mine.rank), "MPI_Comm_rank"));
    AM_TRY(
        am_mpi_code(MPI_Allreduce(&mine, &worst, 1, MPI_2INT, MPI_MINLOC, comm), "MPI_Allreduce"));
    am_alive(NULL);
    if (worst.code != 0) {
        char message[AM_MESSAGE_BYTES] = "";
        if (mine.rank == worst.rank) {
            (void)snprintf(message, sizeof message, "%s", am_error_message());
        }
        AM_TRY(am_mpi_code(MPI_Bcast(message, (int)sizeof message, MPI_CHAR, worst.rank, comm),
                           "MPI_Bcast"));
        am_error_set(message);
    }
    rc = worst.code;
cleanup:
    return rc;
}

int am_agree_step_all(MPI_Comm comm, int rc)
{
    if (rc == 0 && am_stop_requested()) {
        am_error_clear();
        rc = am_fail(AM_E_STOPPED, "stop requested (%s)", am_stop_reason());
    }
    return am_agree_all(comm, rc);
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
