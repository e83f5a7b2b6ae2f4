/* See spectral.h. SPDX-License-Identifier: BSD-3-Clause */
#include "jobs/analyze/spectral.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include "jobs/merge/budget.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "solver/analysis/matrices.h"

static int deal(const am_tensor_table *tensors, int parts, int *owner)
{
    bool *is_wanted = am_new(tensors->n + 1, sizeof *is_wanted, "matrices");
    int rc = is_wanted != NULL ? 0 : AM_E_NOMEM;
    for (int64_t i = 0; rc == 0 && i < tensors->n; i++) {
        is_wanted[i] = am_is_matrix(&tensors->t[i]);
        AM_KEEP(is_wanted[i] ? am_matrix_check(&tensors->t[i], "analyze without --spectral") : 0);
    }
    AM_KEEP(am_matrices_deal(tensors, is_wanted, parts, owner));
    free(is_wanted);
    return rc;
}

int am_spectral_find_all(MPI_Comm comm, const am_inputs *inputs, am_spectral *spectral)
{
    am_spectral *s = spectral;
    int size = 0, rc = 0;
    int64_t largest = 0;
    MPI_Comm_size(comm, &size);
    s->tensors = inputs->source[0].tensors;
    s->models = inputs->n - 1;
    s->owner = am_new(s->tensors->n + 1, sizeof *s->owner, "matrices");
    AM_KEEP(s->owner != NULL ? deal(s->tensors, size, s->owner) : AM_E_NOMEM);
    AM_AGREE(comm);
    for (int r = 0; r < size; r++) {
        const int64_t bytes = am_spectra_bytes(s->tensors, s->owner, r, s->models, &s->rule);
        largest = bytes > largest ? bytes : largest;
    }
    AM_TRY(am_budget_check_all(comm, inputs, largest, s->memory, "fewer --directions"));
    s->of = am_spectra_new(s->tensors->n, s->owner, s->models, &s->rule);
    rc = s->of != NULL ? 0 : AM_E_NOMEM;
    AM_AGREE(comm);
    AM_TRY(am_spectra_all(comm, s->tensors, &inputs->input[0], &inputs->input[1], s->models,
                          &s->rule, s->owner, s->of));
cleanup:
    return rc;
}

void am_spectral_free(am_spectral *spectral)
{
    free(spectral->owner);
    free(spectral->of);
}

/* ---- JSON ---- */

/* Numbers of am_spectrum that are told task by task. */
static const struct {
    const char *key;
    size_t offset;
} columns[] = {{"effective_rank", offsetof(am_spectrum, effective_rank)},
               {"stable_rank", offsetof(am_spectrum, stable_rank)},
               {"rank", offsetof(am_spectrum, rank)},
               {"rank_90", offsetof(am_spectrum, rank_at[0])},
               {"rank_95", offsetof(am_spectrum, rank_at[1])},
               {"rank_99", offsetof(am_spectrum, rank_at[2])}};
enum { COLUMNS = sizeof columns / sizeof *columns };

static double column_of(const am_spectrum *spectrum, int column)
{
    return *(const double *)((const char *)spectrum + columns[column].offset);
}

static void write_rows(am_json *j, const char *key, const double *values, int rows, int64_t cols,
                       int64_t stride)
{
    am_json_array(j, key);
    for (int t = 0; t < rows; t++) {
        am_json_array(j, NULL);
        for (int64_t i = 0; i < cols; i++) {
            am_json_real(j, NULL, values[t * stride + i]);
        }
        am_json_end_array(j);
    }
    am_json_end_array(j);
}

void am_spectral_write(am_json *j, const am_spectral *spectral, int64_t tensor)
{
    const am_spectra *s = &spectral->of[tensor];
    const int T = spectral->models;
    if (spectral->owner[tensor] < 0) {
        return;
    }
    const am_tensor *t = &spectral->tensors->t[tensor];
    const int64_t m = am_matrix_rows(t), n = am_matrix_cols(t), k = m < n ? m : n;
    const int64_t leading = spectral->rule.leading;
    am_json_object(j, "spectral");
    am_json_int(j, "rows", m);
    am_json_int(j, "columns", n);
    for (int c = 0; c < COLUMNS; c++) {
        am_json_array(j, columns[c].key);
        for (int i = 0; i < T; i++) {
            am_json_real(j, NULL, column_of(&s->task[i], c));
        }
        am_json_end_array(j);
    }
    write_rows(j, "singular_values", s->leading, T, leading < k ? leading : k, leading);
    write_rows(j, "quantiles", s->task->quantile, T, AM_SPECTRUM_QUANTILES,
               sizeof(am_spectrum) / sizeof(double));
    write_rows(j, "overlap_left", s->left, T, T, T);
    write_rows(j, "overlap_right", s->right, T, T, T);
    am_json_real(j, "interference", s->interference);
    am_json_end_object(j);
}

/* ---- means ---- */

static double mean_column(const am_spectral *s, int task, int column)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < s->tensors->n; i++) {
        if (s->owner[i] >= 0) {
            sum += column_of(&s->of[i].task[task], column);
            n++;
        }
    }
    return n > 0 ? sum / (double)n : (double)NAN;
}

/* Of overlaps (a, b), over the matrices where both tasks have directions. */
static double mean_overlap(const am_spectral *s, bool is_left, int at)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < s->tensors->n; i++) {
        const double x =
            s->owner[i] < 0 ? (double)NAN : (is_left ? s->of[i].left : s->of[i].right)[at];
        if (!isnan(x)) {
            sum += x;
            n++;
        }
    }
    return n > 0 ? sum / (double)n : (double)NAN;
}

static double mean_interference(const am_spectral *s, int64_t *matrices)
{
    double sum = 0;
    *matrices = 0;
    for (int64_t i = 0; i < s->tensors->n; i++) {
        if (s->owner[i] >= 0) {
            sum += s->of[i].interference;
            (*matrices)++;
        }
    }
    return *matrices > 0 ? sum / (double)*matrices : (double)NAN;
}

static void write_overlaps(am_json *j, const char *key, const am_spectral *s, bool is_left)
{
    am_json_array(j, key);
    for (int a = 0; a < s->models; a++) {
        am_json_array(j, NULL);
        for (int b = 0; b < s->models; b++) {
            am_json_real(j, NULL, mean_overlap(s, is_left, a * s->models + b));
        }
        am_json_end_array(j);
    }
    am_json_end_array(j);
}

void am_spectral_write_means(am_json *j, const am_spectral *spectral)
{
    int64_t matrices = 0;
    const double interference = mean_interference(spectral, &matrices);
    am_json_object(j, "spectral");
    am_json_int(j, "matrices", matrices);
    for (int c = 0; c < COLUMNS; c++) {
        am_json_array(j, columns[c].key);
        for (int t = 0; t < spectral->models; t++) {
            am_json_real(j, NULL, mean_column(spectral, t, c));
        }
        am_json_end_array(j);
    }
    write_overlaps(j, "overlap_left", spectral, true);
    write_overlaps(j, "overlap_right", spectral, false);
    am_json_real(j, "interference", interference);
    am_json_end_object(j);
}

void am_spectral_print(const am_spectral *spectral, char *const *path)
{
    int64_t matrices = 0;
    const double interference = mean_interference(spectral, &matrices);
    am_info("means over %lld matrices; singular task interference %.6g", (long long)matrices,
            interference);
    am_info("%-4s %9s %9s %9s %9s %9s %9s", "", "effective", "stable", "rank", "90 %", "95 %",
            "99 %");
    for (int t = 0; t < spectral->models; t++) {
        am_info("[%2d] %9.4g %9.4g %9.4g %9.4g %9.4g %9.4g  %s", t + 1, mean_column(spectral, t, 0),
                mean_column(spectral, t, 1), mean_column(spectral, t, 2),
                mean_column(spectral, t, 3), mean_column(spectral, t, 4),
                mean_column(spectral, t, 5), path[t + 1]);
    }
}
