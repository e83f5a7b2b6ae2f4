/* What is measured by round: see points.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/training/iterate/points.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "mpi/agree.h"
#include "mpi/bigcount.h"

enum { VALUES = 6, MOST_TEXT = 1 << 30 };

/* The values of a point in the order of the file. */
static void list(const am_point *point, double value[VALUES])
{
    const double all[VALUES] = {point->validation, point->validation_loss, point->test,
                                point->test_loss,  point->noise,           point->noise_expected};
    for (int i = 0; i < VALUES; i++) {
        value[i] = all[i];
    }
}

static void write_points(const am_point *point, int64_t n, FILE *out)
{
    fputs("# round, of validation and test data accuracy and loss, noise measured and expected\n",
          out);
    for (int64_t k = 1; k <= n; k++) {
        double value[VALUES];
        list(&point[k], value);
        fprintf(out, "%lld", (long long)k);
        for (int i = 0; i < VALUES; i++) {
            if (isnan(value[i])) {
                fputs(" nan", out); /* whatever its sign */
            } else {
                fprintf(out, " %.17g", value[i]);
            }
        }
        fputc('\n', out);
    }
}

int am_points_save_all(MPI_Comm comm, const am_run_folder *folder, const char *name,
                       const am_point *point, int64_t n)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    int rc = out == NULL ? am_fail(AM_E_NOMEM, "out of memory for %s", name) : AM_OK;
    if (out != NULL) {
        write_points(point, n, out);
        rc = fclose(out) != 0 ? am_fail(AM_E_NOMEM, "out of memory for %s", name) : AM_OK;
    }
    AM_AGREE(comm);
    AM_TRY(am_run_folder_text_all(comm, folder, name, text));
cleanup:
    free(text);
    return rc;
}

/* Points of `text` until one is not as it was written. */
static int64_t parse(const char *text, int64_t most, am_point *point)
{
    int64_t n = 0;
    const char *at = strchr(text, '\n');
    while (at != NULL && n < most) {
        double value[VALUES];
        char *end = NULL;
        bool is_whole = strtoll(at + 1, &end, 10) == n + 1;
        for (int i = 0; i < VALUES && is_whole; i++) {
            is_whole = *end == ' ';
            value[i] = strtod(end, &end);
        }
        if (!is_whole || *end != '\n') {
            break;
        }
        point[++n] = (am_point){value[0], value[1], value[2], value[3], value[4], value[5]};
        at = end;
    }
    return n;
}

static int read_points(const am_run_folder *folder, const char *name, int64_t most, am_point *point,
                       int64_t *n)
{
    char path[AM_RUN_PATH], *text = NULL;
    int64_t bytes = 0;
    int rc = am_run_folder_file(folder, path, "%s", name);
    AM_KEEP(am_file_slurp(path, MOST_TEXT, &text, &bytes));
    if (rc == AM_E_NOINPUT || rc == AM_E_DATA) { /* none, or nothing that was written here */
        am_error_clear();
        rc = AM_OK;
    }
    *n = text != NULL ? parse(text, most, point) : 0;
    free(text);
    return rc;
}

int am_points_read_all(MPI_Comm comm, const am_run_folder *folder, const char *name, int64_t most,
                       am_point *point, int64_t *n)
{
    int rank, rc = AM_OK;
    MPI_Comm_rank(comm, &rank);
    *n = 0;
    if (rank == 0) {
        rc = read_points(folder, name, most, point, n);
    }
    AM_AGREE(comm);
    AM_TRY(am_bcast_all(comm, 0, n, sizeof *n));
    AM_TRY(am_bcast_all(comm, 0, point + 1, *n * (int64_t)sizeof *point));
cleanup:
    return rc;
}

void am_points_json(const am_point *point, int64_t n, int64_t epochs, am_json *json)
{
    static const char *const key[VALUES] = {"validation_accuracy", "validation_loss_nats",
                                            "test_accuracy",       "test_loss_nats",
                                            "noise_energy",        "noise_expected"};
    am_json_array(json, "points");
    for (int64_t k = 0; k <= n; k++) {
        double value[VALUES];
        list(&point[k], value);
        am_json_object(json, NULL);
        am_json_int(json, "round", k);
        am_json_int(json, "epochs", k * epochs);
        for (int i = 0; i < VALUES; i++) {
            am_json_real(json, key[i], value[i]);
        }
        am_json_end_object(json);
    }
    am_json_end_array(json);
}
