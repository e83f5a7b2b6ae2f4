/* allmerge analyze BASE MODEL...: norms, Gram matrices and cosines of task vectors; singular
 * spectra. SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "jobs/analyze/spectral.h"
#include "jobs/command.h"
#include "jobs/merge/memory.h"
#include "mpi/agree.h"
#include "mpi/arena.h"
#include "mpi/log.h"
#include "mpi/runtime.h"
#include "solver/analysis/gram.h"

enum {
    AM_TABLE_MODELS = 12,    /* more: no table on stderr */
    AM_READ_AHEAD = 16 << 20 /* bytes an input */
};

typedef struct analyze_options {
    char *output;
    int64_t leading, directions, memory;
    bool spectral, overwrite;
} analyze_options;

#define AM_AT(member) offsetof(analyze_options, member)
static const am_param options[] = {
    {"output", AM_PARAM_STRING, AM_AT(output), "", 0, 0, NULL,
     "also write the JSON, with every tensor, to this file"},
    {"spectral", AM_PARAM_BOOL, AM_AT(spectral), "false", 0, 0, NULL,
     "singular spectra of matrices, overlaps of subspaces, interference"},
    {"leading", AM_PARAM_INT, AM_AT(leading), "8", 1, 1 << 16, NULL,
     "singular values of a matrix that are told"},
    {"directions", AM_PARAM_INT, AM_AT(directions), "0", 0, 1 << 16, NULL,
     "leading directions of each task that are compared; 0: smaller side / tasks"},
    {"memory", AM_PARAM_BYTES, AM_AT(memory), "0", 0, INT64_MAX, NULL,
     "of each rank; refused if the matrices take more (0: no limit)"},
    AM_OPTION_OVERWRITE(analyze_options),
    {0}};
#undef AM_AT

/* Gram matrices of T vectors and what follows from one of them. */
typedef struct am_analysis {
    int n;
    const am_tensor_table *tensors;
    double *per_tensor, *global; /* [tensors, T, T], [T, T] owned */
    double *norms, *cosines;     /* [T], [T, T] of the matrix at hand, owned */
    am_spectral spectral;        /* `owner` NULL: not wanted */
} am_analysis;

static int allocate(am_analysis *a)
{
    const int64_t square = (int64_t)a->n * a->n;
    a->per_tensor = am_new(a->tensors->n * square + 1, sizeof(double), "Gram matrices");
    a->global = am_new(square, sizeof(double), "Gram matrix");
    a->norms = am_new(a->n, sizeof(double), "norms");
    a->cosines = am_new(square, sizeof(double), "cosines");
    return a->per_tensor != NULL && a->global != NULL && a->norms != NULL && a->cosines != NULL
               ? 0
               : AM_E_NOMEM;
}

static void release(am_analysis *a)
{
    free(a->per_tensor);
    free(a->global);
    free(a->norms);
    free(a->cosines);
    am_spectral_free(&a->spectral);
}

static void write_matrix(am_json *j, const char *key, const double *matrix, int n)
{
    am_json_array(j, key);
    for (int a = 0; a < n; a++) {
        am_json_array(j, NULL);
        for (int b = 0; b < n; b++) {
            am_json_real(j, NULL, matrix[a * n + b]);
        }
        am_json_end_array(j);
    }
    am_json_end_array(j);
}

/* Members of an open object. */
static void write_gram(am_json *j, am_analysis *a, const double *gram)
{
    am_gram_cosines(gram, a->n, a->norms, a->cosines);
    am_json_array(j, "norms");
    for (int t = 0; t < a->n; t++) {
        am_json_real(j, NULL, a->norms[t]);
    }
    am_json_end_array(j);
    write_matrix(j, "gram", gram, a->n);
    write_matrix(j, "cosines", a->cosines, a->n);
}

static void write_tensor(am_json *j, am_analysis *a, int64_t tensor)
{
    am_json_object(j, a->tensors->t[tensor].name);
    write_gram(j, a, a->per_tensor + tensor * a->n * a->n);
    if (a->spectral.owner != NULL) {
        am_spectral_write(j, &a->spectral, tensor);
    }
    am_json_end_object(j);
}

static int write_json(am_json *j, am_analysis *a, char *const *path, bool is_whole)
{
    am_json_object(j, NULL);
    am_json_string(j, "base", path[0]);
    am_json_array(j, "models");
    for (int t = 0; t < a->n; t++) {
        am_json_string(j, NULL, path[t + 1]);
    }
    am_json_end_array(j);
    am_json_object(j, "global");
    write_gram(j, a, a->global);
    am_json_end_object(j);
    if (a->spectral.owner != NULL) {
        am_spectral_write_means(j, &a->spectral);
    }
    if (is_whole) {
        am_json_object(j, "tensors");
        for (int64_t i = 0; i < a->tensors->n; i++) {
            if (am_dtype_is_float(a->tensors->t[i].dtype)) {
                write_tensor(j, a, i);
            }
        }
        am_json_end_object(j);
    }
    am_json_end_object(j);
    return am_json_finish(j);
}

static void print_table(am_analysis *a, char *const *path)
{
    am_gram_cosines(a->global, a->n, a->norms, a->cosines);
    am_info("%-4s %12s  cosines", "", "norm");
    for (int t = 0; t < a->n && a->n <= AM_TABLE_MODELS; t++) {
        char line[256];
        int used = snprintf(line, sizeof line, "[%2d] %12.6g ", t + 1, a->norms[t]);
        for (int s = 0; s < a->n && used < (int)sizeof line; s++) {
            used += snprintf(line + used, sizeof line - (size_t)used, " %7.4f",
                             a->cosines[t * a->n + s]);
        }
        am_info("%s  %s", line, path[t + 1]);
    }
}

/* Write by a temporary name beside the final one, synced before the rename. Rank 0. */
static int save(const analyze_options *o, const am_json *j)
{
    char partial[4096];
    FILE *file = NULL;
    bool is_made = false;
    int rc = 0;
    if (snprintf(partial, sizeof partial, "%s.partial", o->output) >= (int)sizeof partial) {
        return am_fail(AM_E_CREATE, "%s: name too long", o->output);
    }
    if (!o->overwrite && access(o->output, F_OK) == 0) {
        return am_fail(AM_E_CREATE, "%s exists; pass --overwrite to replace it", o->output);
    }
    file = fopen(partial, "wb");
    if (file == NULL) {
        return am_fail_errno(AM_E_CREATE, errno, "%s: cannot create the output", o->output);
    }
    is_made = fwrite(j->text, 1, j->length, file) == j->length && fputc('\n', file) != EOF &&
              fflush(file) == 0 && fsync(fileno(file)) == 0;
    if (!is_made) {
        rc = am_fail_errno(AM_E_IO, errno, "%s: cannot write", partial);
    }
    if (fclose(file) != 0 && rc == 0) {
        rc = am_fail_errno(AM_E_IO, errno, "%s: cannot write", partial);
    }
    if (rc == 0 && rename(partial, o->output) != 0) {
        rc = am_fail_errno(AM_E_CREATE, errno, "%s: cannot rename to it", o->output);
    }
    if (rc != 0) {
        (void)remove(partial);
    }
    return rc;
}

/* The file with every tensor, and one line on stdout with the global values. */
static int report_all(const analyze_options *o, am_analysis *a, char *const *path)
{
    am_json whole = {0}, line = {0};
    int rc = write_json(&line, a, path, false);
    if (am_world_rank() == 0 && o->output != NULL) {
        AM_KEEP(write_json(&whole, a, path, true));
        AM_KEEP(save(o, &whole));
    }
    AM_AGREE(am_world());
    print_table(a, path);
    if (a->spectral.owner != NULL) {
        am_spectral_print(&a->spectral, path);
    }
    am_result(&line);
cleanup:
    am_json_free(&whole);
    am_json_free(&line);
    return rc;
}

static int run_all(const am_args *args, int *exit_status)
{
    static const char *const of_spectra[] = {"leading", "directions", "memory", NULL};
    const analyze_options *o = args->options;
    am_analysis a = {.n = args->n_positional - 1,
                     .spectral = {.rule = {.leading = o->leading, .directions = o->directions},
                                  .memory = o->memory}};
    am_inputs inputs = {0};
    am_slice slice = {0};
    (void)exit_status;
    am_memory_keep_no_holes();
    int rc = a.n <= AM_MAX_MODELS
                 ? 0
                 : am_fail(AM_E_USAGE, "analyze: at most %d models, found %d", AM_MAX_MODELS, a.n);
    AM_KEEP(o->spectral ? 0 : am_args_refuse(args, options, of_spectra, "goes with --spectral"));
    AM_AGREE(am_world());
    AM_TRY(am_inputs_open_all(am_world(), args->positional, args->n_positional, true, AM_READ_AHEAD,
                              &inputs));
    a.tensors = am_model_tensors(inputs.model[0]);
    rc = allocate(&a);
    AM_KEEP(am_slice_make(a.tensors, AM_CHUNK, am_world_size(), am_world_rank(), &slice));
    AM_AGREE(am_world());
    AM_TRY(am_gram_all(am_world(), a.tensors, &inputs.input[0], inputs.input + 1, a.n, &slice,
                       a.per_tensor, a.global));
    if (o->spectral) {
        AM_TRY(am_spectral_find_all(am_world(), &inputs, &a.spectral));
    }
    rc = report_all(o, &a, inputs.path);
cleanup:
    am_slice_free(&slice);
    release(&a);
    am_inputs_close(&inputs);
    return rc;
}

const am_command am_command_analyze = {
    .name = "analyze",
    .synopsis = "BASE MODEL... [-o OUT.json] [--spectral [--leading K] [--directions R] "
                "[--memory SIZE]] [--overwrite]",
    .summary =
        "Norms, inner products, cosines and singular spectra of task vectors (model - base).",
    .help = "Global and per tensor, from exactly summed inner products: the same digits for any "
            "number of ranks. The JSON holds norms [T], gram [T][T] and cosines [T][T], models in "
            "the order given; a cosine with a zero vector is null. --spectral adds, for every "
            "matrix, singular values, effective rank (exponential of the entropy of s / sum s), "
            "stable rank, ranks for 90, 95 and 99 % of the energy, overlaps of the leading "
            "subspaces of every two tasks, and singular task interference (arXiv:2412.00081).",
    .min_positional = 2,
    .max_positional = -1,
    .options = options,
    .options_bytes = sizeof(analyze_options),
    .run_all = run_all,
};
