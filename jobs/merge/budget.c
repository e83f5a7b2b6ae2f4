/* See budget.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/merge/budget.h"

#include "jobs/merge/memory.h"
#include "mpi/error.h"
#include "mpi/log.h"
#include "mpi/param.h"
#include "solver/analysis/matrices.h"

enum {
    PIECE_IN = 256 << 10, /* bytes, of each input */
    ROOM = 2 << 20        /* bytes: the output's piece, threads, messages, tables */
};

int am_budget_check_all(MPI_Comm comm, const am_inputs *inputs, int64_t bytes, int64_t memory,
                        const char *advice)
{
    am_process process = {0};
    int rc = am_memory_process_all(comm, &process);
    int64_t peak = process.now + bytes + ROOM;
    for (int k = 0; k < inputs->n; k++) {
        peak += PIECE_IN + am_model_bytes(inputs->model[k], AM_MATRIX_PIECE);
    }
    peak = peak > process.peak ? peak : process.peak;
    if (rc == 0 && memory > 0 && peak > memory) {
        rc = am_fail(AM_E_USAGE,
                     "--memory %s is too little: the largest matrix and what is kept of a rank's "
                     "others take up to %s; give that, or %s",
                     am_format_bytes(memory), am_format_bytes(peak), advice);
    } else if (rc == 0) {
        am_debug("matrices: up to %s on a rank", am_format_bytes(peak));
    }
    return rc;
}
