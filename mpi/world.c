/* SPDX-License-Identifier: BSD-3-Clause */
#include "mpi/world.h"

#include <string.h>
#include "mpi/bigcount.h"
#include "mpi/error.h"

static MPI_Comm world = MPI_COMM_NULL;
static int world_rank = 0, world_size = 1;

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

int am_world_open_all(void)
{
    int rc = 0;
    AM_TRY(am_mpi_code(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup"));
    AM_TRY(am_mpi_code(MPI_Comm_rank(world, &world_rank), "MPI_Comm_rank"));
    AM_TRY(am_mpi_code(MPI_Comm_size(world, &world_size), "MPI_Comm_size"));
cleanup:
    return rc;
}

void am_world_close_all(void)
{
    if (world != MPI_COMM_NULL) {
        (void)MPI_Comm_free(&world);
    }
}
