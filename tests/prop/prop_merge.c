/* Every method of the table, in every scope and semantics that it offers: the same bytes for any
 * number of ranks, any block size and any cut of the slices, on tensors of all forms, with values
 * as they come from bf16 files (many ties). SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "solver/merge/dense.h"
#include "solver/merge/memory.h"
#include "solver/merge/merge.h"
#include "tests/am_test.h"

enum { MODELS = 3, TENSORS = 9, BASE = 2 * MODELS, OUT, ALL }; /* models, their aux, base, output */

static const struct {
    int ndim;
    int64_t shape[3];
} forms[TENSORS] = {{1, {0}},        {0, {0}},         {1, {1}},
                    {1, {4097}},     {2, {1, 9001}},   {2, {9001, 1}},
                    {2, {120, 129}}, {3, {5, 70, 33}}, {2, {3, 5000}}};

typedef struct scene {
    am_tensor_table tensors;
    int64_t offset[TENSORS], index[TENSORS], n;
    double *reals[ALL];
    am_memory memory[ALL];
    am_source source[ALL];
    am_merge_input input[ALL];
    am_sink sink;
    double param[TENSORS * AM_METHOD_MAX_PARAMS];
    double model_param[TENSORS * MODELS * AM_METHOD_MAX_PARAMS];
    bool copy[TENSORS];
    int64_t layer[TENSORS];
    am_merge_job job;
} scene;

static double round_to_bf16(double x)
{
    float narrow = (float)x;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    bits &= 0xffff0000u;
    memcpy(&narrow, &bits, sizeof bits);
    return narrow;
}

/* Models near the base, as after training; second inputs are positive. */
static void fill(scene *s)
{
    for (int k = 0; k < OUT; k++) {
        const am_rng rng = am_rng_make(am_test_seed(), "merges", 0, k, "");
        for (int64_t i = 0; i < s->n; i++) {
            const double x = am_rng_normal(&rng, i);
            s->reals[k][i] = k >= MODELS && k < BASE ? x * x + 0.1 : x / (k == BASE ? 1 : 64);
        }
    }
    for (int64_t i = 0; i < s->n; i++) {
        s->reals[BASE][i] = round_to_bf16(s->reals[BASE][i]);
        for (int k = 0; k < MODELS; k++) {
            s->reals[k][i] = round_to_bf16(s->reals[BASE][i] + s->reals[k][i]);
        }
    }
}

static void scene_open(scene *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < TENSORS; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "layers.%d.weight", i);
        AM_CHECK_OK(
            am_tensor_table_add(&s->tensors, name, AM_DTYPE_F64, forms[i].ndim, forms[i].shape));
        s->offset[i] = s->n;
        s->n += s->tensors.t[i].numel;
        s->layer[i] = i;
    }
    AM_CHECK_OK(am_tensor_table_finish(&s->tensors));
    am_memory_identity(s->index, TENSORS);
    for (int k = 0; k < ALL; k++) {
        s->reals[k] = calloc((size_t)s->n, sizeof(double));
        AM_CHECK(s->reals[k] != NULL);
        s->memory[k] = (am_memory){.label = "memory",
                                   .tensors = &s->tensors,
                                   .dtype = AM_DTYPE_F64,
                                   .offset = s->offset,
                                   .reals = s->reals[k],
                                   .n = s->n};
        s->source[k] = am_memory_source(&s->memory[k]);
        s->input[k] = (am_merge_input){.source = &s->source[k], .tensor = s->index};
    }
    s->sink = am_memory_sink(&s->memory[OUT]);
    fill(s);
}

static void scene_close(scene *s)
{
    am_tensor_table_free(&s->tensors);
    for (int k = 0; k < ALL; k++) {
        free(s->reals[k]);
    }
}

/* What a recipe must give is drawn, of models so that it sums to one; the rest has its default. */
static void set_job(scene *s, const am_method *method)
{
    const am_rng rng = am_rng_make(am_test_seed(), "merges", 0, 0, method->name);
    int n_params = 0, n_models = method->max_models == 0 ? MODELS : method->max_models;
    n_models = n_models < MODELS ? n_models : MODELS;
    while (method->params[n_params].key != NULL) {
        n_params++;
    }
    for (int64_t i = 0; i < TENSORS; i++) {
        for (int p = 0; p < n_params; p++) {
            const am_method_param *param = &method->params[p];
            double left = 1;
            s->param[i * n_params + p] =
                param->required ? am_rng_uniform(&rng, p) : param->fallback;
            for (int m = 0; m < n_models; m++) {
                const double drawn =
                    m == n_models - 1 ? left : am_rng_uniform(&rng, 100 + 10 * p + m) / 3;
                s->model_param[(i * n_models + m) * n_params + p] =
                    param->required ? drawn : param->fallback;
                left -= drawn;
            }
        }
    }
    s->job =
        (am_merge_job){.method = method,
                       .base = method->needs_base || method->takes_base ? &s->input[BASE] : NULL,
                       .n_models = n_models,
                       .models = &s->input[0],
                       .aux = method->needs_aux ? &s->input[MODELS] : NULL,
                       .sink = &s->sink,
                       .param = s->param,
                       .model_param = s->model_param,
                       .seed = am_test_seed(),
                       .layer = s->layer,
                       .layers = TENSORS,
                       .copy = s->copy,
                       .block = 1 << 20};
}

static int run_all(MPI_Comm comm, scene *s, int64_t unit)
{
    int rank, size;
    am_slice slice;
    am_merge_result result;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    memset(s->reals[OUT], 0, (size_t)s->n * sizeof(double));
    AM_CHECK_OK(am_merge_slice_make(&s->job, &s->tensors, unit, NULL, size, rank, &slice));
    int rc = am_merge_run_all(comm, &s->job, &slice, &result);
    am_slice_free(&slice);
    if (rc == 0) { /* each element has one writer: the sum of bit patterns is the pattern */
        AM_CHECK_OK(am_sum_i64_all(comm, (int64_t *)(void *)s->reals[OUT], s->n));
    }
    return rc;
}

/* The whole merge on a rank alone, then together, cut in other ways. */
static void compare_all(scene *s, double *alone)
{
    static const int64_t blocks[] = {1, 5000, 20000, 1 << 20}, units[] = {4096, 8192, 4096, 64};
    static const int64_t sets[] = {0, 1, 40000, 1}; /* bytes of units reduced together: 1 of them */
    const am_method *method = s->job.method;
    const size_t bytes = (size_t)s->n * sizeof *alone;
    s->job.block = 1 << 20;
    s->job.unit_bytes = 0;
    if (!AM_CHECK_OK(run_all(MPI_COMM_SELF, s, 4096))) {
        fprintf(stderr, "of %s\n", method->name);
        return; /* on all ranks */
    }
    memcpy(alone, s->reals[OUT], bytes);
    for (int i = 0; i < 4; i++) {
        s->job.block = blocks[i];
        s->job.unit_bytes = sets[i];
        AM_CHECK_OK(run_all(am_world(), s, units[i]));
        if (!AM_CHECK(memcmp(alone, s->reals[OUT], bytes) == 0)) {
            fprintf(stderr, "%s, scope %d, semantics %d, block %lld: other bytes\n", method->name,
                    (int)s->job.scope, (int)s->job.semantics, (long long)blocks[i]);
        }
    }
}

static void bytes_do_not_depend_on_the_cut_all(void)
{
    static const am_scope scopes[] = {AM_SCOPE_TENSOR, AM_SCOPE_GLOBAL};
    static const am_semantics semantics[] = {AM_SEMANTICS_PAPER, AM_SEMANTICS_MERGEKIT};
    scene s;
    scene_open(&s);
    double *alone = malloc((size_t)s.n * sizeof *alone);
    AM_CHECK(alone != NULL);
    for (int k = 0; am_method_table[k] != NULL; k++) {
        const am_method *method = am_method_table[k];
        set_job(&s, method);
        for (int i = 0; i < 4; i++) {
            const am_scope scope = scopes[i % 2];
            const am_semantics meaning = semantics[i / 2];
            if ((method->scopes == 0 ? i % 2 == 0 : (method->scopes & scope) != 0) &&
                (method->semantics == 0 ? i / 2 == 0 : (method->semantics & meaning) != 0)) {
                s.job.scope = scope;
                s.job.semantics = meaning;
                compare_all(&s, alone);
            }
        }
    }
    free(alone);
    scene_close(&s);
}

static const am_test tests[] = {AM_TEST(bytes_do_not_depend_on_the_cut_all)};
AM_TEST_MAIN("method_ranks", tests)
