/* Big counts: splitting and pairwise exchange. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/bigcount.h"

#include <limits.h>
#include <string.h>
#include "mpi/error.h"

enum { WINDOW = 64, TAG_EXCHANGE = 11 };

static int64_t message_limit = (int64_t)1 << 30;

int am_int(int64_t value)
{
    AM_ASSERT(value >= INT_MIN && value <= INT_MAX);
    return (int)value;
}

int am_mpi_code(int mpi_rc, const char *call)
{
    if (mpi_rc == MPI_SUCCESS) {
        return 0;
    }
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (MPI_Error_string(mpi_rc, text, &length) != MPI_SUCCESS) {
        text[0] = '\0';
    }
    return am_fail(AM_E_BUG, "%s failed: %s", call, text);
}

void am_bigcount_set_limit(int64_t bytes)
{
    AM_ASSERT(bytes > 0 && bytes <= INT_MAX);
    message_limit = bytes;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int am_bcast_all(MPI_Comm comm, int root, void *data, int64_t bytes)
{
    int rc = 0;
    for (int64_t at = 0; at < bytes; at += message_limit) {
        AM_TRY(
            am_mpi_code(MPI_Bcast((unsigned char *)data + at,
                                  am_int(least(message_limit, bytes - at)), MPI_BYTE, root, comm),
                        "MPI_Bcast"));
    }
cleanup:
    return rc;
}

/* Requests under way. All ranks walk the pairs in the same order (step s: send to rank + s, receive
 * from rank - s), so waiting for a full window cannot form a cycle. */
typedef struct window {
    MPI_Request request[WINDOW];
    int n;
} window;

static int window_wait(window *w)
{
    int code = MPI_Waitall(w->n, w->request, MPI_STATUSES_IGNORE);
    w->n = 0;
    return am_mpi_code(code, "MPI_Waitall");
}

/* Post one step: both directions, in messages of at most the limit, alternating so that neither
 * side waits for a message that its peer has not been able to post. */
static int window_step(window *w, MPI_Comm comm, const unsigned char *send, int64_t send_bytes,
                       int to, unsigned char *receive, int64_t receive_bytes, int from)
{
    int rc = 0;
    for (int64_t at = 0; at < send_bytes || at < receive_bytes; at += message_limit) {
        if (w->n + 2 > WINDOW) {
            AM_TRY(window_wait(w));
        }
        if (at < receive_bytes) {
            AM_TRY(am_mpi_code(MPI_Irecv(receive + at,
                                         am_int(least(message_limit, receive_bytes - at)), MPI_BYTE,
                                         from, TAG_EXCHANGE, comm, &w->request[w->n]),
                               "MPI_Irecv"));
            w->n++;
        }
        if (at < send_bytes) {
            AM_TRY(am_mpi_code(MPI_Isend(send + at, am_int(least(message_limit, send_bytes - at)),
                                         MPI_BYTE, to, TAG_EXCHANGE, comm, &w->request[w->n]),
                               "MPI_Isend"));
            w->n++;
        }
    }
cleanup:
    return rc;
}

int am_exchange_all(MPI_Comm comm, const void *send, const int64_t *send_bytes,
                    const int64_t *send_at, void *receive, const int64_t *receive_bytes,
                    const int64_t *receive_at)
{
    int rc = 0, rank = 0, size = 1;
    window w = {.n = 0};
    const unsigned char *out = send;
    unsigned char *in = receive;
    AM_TRY(am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
    AM_TRY(am_mpi_code(MPI_Comm_size(comm, &size), "MPI_Comm_size"));
    AM_ASSERT(send_bytes[rank] == receive_bytes[rank]);
    if (send_bytes[rank] > 0) {
        memcpy(in + receive_at[rank], out + send_at[rank], (size_t)send_bytes[rank]);
    }
    for (int s = 1; s < size; s++) {
        int to = (rank + s) % size, from = (rank - s + size) % size;
        AM_TRY(window_step(&w, comm, out + send_at[to], send_bytes[to], to, in + receive_at[from],
                           receive_bytes[from], from));
    }
    AM_TRY(window_wait(&w));
cleanup:
    return rc;
}

int am_gather_all(MPI_Comm comm, void *data, const int64_t *bytes, const int64_t *at)
{
    int rc = 0, rank = 0, size = 1;
    window w = {.n = 0};
    unsigned char *base = data;
    AM_TRY(am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
    AM_TRY(am_mpi_code(MPI_Comm_size(comm, &size), "MPI_Comm_size"));
    for (int s = 1; s < size; s++) {
        int to = (rank + s) % size, from = (rank - s + size) % size;
        AM_TRY(window_step(&w, comm, base + at[rank], bytes[rank], to, base + at[from], bytes[from],
                           from));
    }
    AM_TRY(window_wait(&w));
cleanup:
    return rc;
}
