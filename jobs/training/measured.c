/* What a run has measured: see measured.h. A file is a line "NUMBERS DIGEST" and a line for each
 * number, its bits in hexadecimal. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/measured.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/commit/digest.h"
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"
#include "mpi/log.h"

static const int64_t most_bytes = (int64_t)256 << 20;

static int path_of(const am_run_folder *folder, const char *name, char *path)
{
    return am_run_folder_file(folder, path, "units/%s.unit", name);
}

/* The numbers of a text with their digest, at most `most`; -1: it is not so. */
static int64_t parse(const char *text, double *value, int64_t most)
{
    int64_t n;
    uint64_t digest;
    int at = 0;
    if (sscanf(text, "%" SCNd64 " %" SCNx64 "%n", &n, &digest, &at) != 2 || n < 0 || n > most) {
        return -1;
    }
    const char *next = text + at;
    for (int64_t i = 0; i < n; i++) {
        char *end;
        const uint64_t bits = strtoull(next, &end, 16);
        if (end == next) {
            return -1;
        }
        memcpy(&value[i], &bits, sizeof bits);
        next = end;
    }
    return am_digest_bytes(value, n * (int64_t)sizeof *value) == digest ? n : -1;
}

static int read_here(const am_run_folder *folder, const char *name, double *value, int64_t most,
                     int64_t *n)
{
    char path[AM_RUN_PATH], *text = NULL;
    int64_t bytes;
    int rc = path_of(folder, name, path);
    AM_KEEP(am_file_slurp(path, most_bytes, &text, &bytes));
    if (rc == AM_OK) {
        *n = parse(text, value, most);
        if (*n < 0) {
            am_warn("%s is damaged: it is measured again", path);
            *n = 0;
        }
    } else if (rc == AM_E_NOINPUT) {
        am_error_clear();
        rc = AM_OK;
    }
    free(text);
    return rc;
}

int am_measured_read_some_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                              double *value, int64_t most, int64_t *n)
{
    int rank, rc = AM_OK;
    MPI_Comm_rank(comm, &rank);
    *n = 0;
    if (rank == 0) {
        rc = read_here(folder, name, value, most, n);
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, n, sizeof *n));
    AM_TRY(am_bcast_all(comm, 0, value, *n * (int64_t)sizeof *value));
cleanup:
    return rc;
}

int am_measured_read_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                         double *value, int64_t n, bool *is_done)
{
    int64_t found = 0;
    const int rc = am_measured_read_some_all(comm, folder, name, value, n, &found);
    *is_done = rc == AM_OK && found == n;
    return rc;
}

/* Owned; NULL with AM_E_NOMEM in the slot. */
static char *text_of(const double *value, int64_t n)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out != NULL) {
        fprintf(out, "%" PRId64 " %016" PRIx64 "\n", n,
                am_digest_bytes(value, n * (int64_t)sizeof *value));
        for (int64_t i = 0; i < n; i++) {
            uint64_t bits;
            memcpy(&bits, &value[i], sizeof bits);
            fprintf(out, "%016" PRIx64 "\n", bits);
        }
    }
    if (out == NULL || fclose(out) != 0) {
        free(text);
        am_fail(AM_E_NOMEM, "out of memory for what was measured");
        return NULL;
    }
    return text;
}

int am_measured_write_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                          const double *value, int64_t n)
{
    char file[AM_RUN_PATH], *text = text_of(value, n);
    int rc = text == NULL ? AM_E_NOMEM : AM_OK;
    if (rc == AM_OK && snprintf(file, sizeof file, "units/%s.unit", name) >= (int)sizeof file) {
        rc = am_fail(AM_E_CREATE, "the name of unit %.100s... is too long", name);
    }
    AM_AGREE(comm);
    AM_TRY(am_run_folder_text_all(comm, folder, file, text));
cleanup:
    free(text);
    return rc;
}
