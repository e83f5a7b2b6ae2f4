/* Memory that all ranks of a node share. POSIX shared memory and not an MPI window: room is
 * reserved and checked first, so that a full /dev/shm is an answer and no SIGBUS, and a rank that
 * cannot map leaves no other rank waiting inside MPI. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/error.h"
#include "mpi/reduce.h"

enum { NAME_BYTES = 64, ATTEMPTS = 100 };

/* True when every rank of comm can share memory with every other, and none objects. */
static int is_one_node_all(MPI_Comm comm, bool *is_one_node)
{
    MPI_Comm node = MPI_COMM_NULL;
    int rc = 0, size = 1, on_node = 0;
    *is_one_node = false;
    AM_TRY(am_mpi_code(MPI_Comm_size(comm, &size), "MPI_Comm_size"));
    AM_TRY(am_mpi_code(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
                       "MPI_Comm_split_type"));
    AM_TRY(am_mpi_code(MPI_Comm_size(node, &on_node), "MPI_Comm_size"));
    AM_TRY(am_mpi_code(MPI_Comm_free(&node), "MPI_Comm_free"));
    const char *wish = getenv("AM_SHARED");
    int64_t objections = on_node != size || (wish != NULL && strcmp(wish, "no") == 0);
    AM_TRY(am_sum_i64_all(comm, &objections, 1));
    *is_one_node = objections == 0;
cleanup:
    return rc;
}

/* Rank 0: a new object of `bytes`, all reserved. Returns its file or -1. */
static int create(int64_t bytes, char name[NAME_BYTES])
{
    int file = -1;
    for (int i = 0; i < ATTEMPTS && file < 0; i++) {
        snprintf(name, NAME_BYTES, "/allmerge-%ld-%d", (long)getpid(), i);
        file = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
        if (file < 0 && errno != EEXIST) {
            break;
        }
    }
    if (file >= 0 && posix_fallocate(file, 0, bytes) != 0) {
        (void)close(file);
        (void)shm_unlink(name);
        file = -1;
    }
    if (file < 0) {
        name[0] = '\0';
    }
    return file;
}

int am_shared_create_all(MPI_Comm comm, int64_t bytes, am_shared *out, bool *is_shared)
{
    int rc = 0, rank = 0, file = -1;
    char name[NAME_BYTES] = "";
    *out = (am_shared){0};
    *is_shared = false;
    bool is_one_node = false;
    AM_TRY(am_mpi_code(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
    AM_TRY(is_one_node_all(comm, &is_one_node));
    if (!is_one_node || bytes < 1) {
        goto cleanup; /* the same on all ranks */
    }
    if (rank == 0) {
        file = create(bytes, name);
    }
    AM_TRY(am_bcast_all(comm, 0, name, sizeof name));
    if (name[0] != '\0' && rank != 0) {
        file = shm_open(name, O_RDWR, 0);
    }
    void *base = MAP_FAILED;
    if (file >= 0) {
        base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    int64_t failures = base == MAP_FAILED;
    rc = am_sum_i64_all(comm, &failures, 1); /* all have opened it: the name can go */
    if (rank == 0 && name[0] != '\0') {
        (void)shm_unlink(name);
    }
    if (rc == 0 && failures == 0) {
        *out = (am_shared){.base = base, .bytes = bytes};
        *is_shared = true;
    } else if (base != MAP_FAILED) {
        (void)munmap(base, (size_t)bytes);
    }
cleanup:
    if (file >= 0) {
        (void)close(file);
    }
    return rc;
}

void am_shared_destroy(am_shared *shared)
{
    if (shared->base != NULL) {
        (void)munmap(shared->base, (size_t)shared->bytes);
    }
    *shared = (am_shared){0};
}

int am_shared_barrier_all(MPI_Comm comm)
{
    atomic_thread_fence(memory_order_seq_cst);
    const int rc = am_mpi_code(MPI_Barrier(comm), "MPI_Barrier");
    atomic_thread_fence(memory_order_seq_cst);
    return rc;
}
