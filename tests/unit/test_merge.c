/* The merge engine on blocks in memory: known answers, the same bytes for any number of ranks and
 * any block size, models that lack a tensor, copied tensors, values that are not finite.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/reduce.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "solver/merge/memory.h"
#include "solver/merge/merge.h"
#include "tests/am_test.h"

enum { MODELS = 3, MAX_TENSORS = 12 };

/* A base, models and an output over one table; whole blocks on every rank. */
typedef struct scene {
    am_tensor_table tensors;
    int64_t offset[MAX_TENSORS], index[MAX_TENSORS], n;
    double *reals[MODELS + 2]; /* base, models, output */
    am_memory memory[MODELS + 2];
    am_source source[MODELS + 1];
    am_sink sink;
    am_merge_input input[MODELS + 1];
    double param[MAX_TENSORS * AM_METHOD_MAX_PARAMS];
    double model_param[MAX_TENSORS * MODELS * AM_METHOD_MAX_PARAMS];
    bool copy[MAX_TENSORS];
    am_merge_job job;
} scene;

static const char *const labels[] = {"base", "model 0", "model 1", "model 2", "output"};

static void scene_close(scene *s)
{
    am_tensor_table_free(&s->tensors);
    for (int k = 0; k < MODELS + 2; k++) {
        free(s->reals[k]);
    }
}

/* Parameters as the recipe would resolve them: the table's defaults, weights given. */
static void set_parameters(scene *s, const am_method *method, const double *weight)
{
    int n_params = 0;
    while (method->params[n_params].key != NULL) {
        n_params++;
    }
    for (int64_t i = 0; i < s->tensors.n; i++) {
        for (int p = 0; p < n_params; p++) {
            const bool is_weight = strcmp(method->params[p].key, "weight") == 0;
            s->param[i * n_params + p] = method->params[p].fallback;
            for (int m = 0; m < MODELS; m++) {
                s->model_param[(i * MODELS + m) * n_params + p] =
                    is_weight ? weight[m] : method->params[p].fallback;
            }
        }
    }
}

static void scene_open(scene *s, const int64_t *numel, int n_tensors, const char *method,
                       const double *weight)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < n_tensors; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "tensor.%02d", i);
        AM_CHECK_OK(am_tensor_table_add(&s->tensors, name, AM_DTYPE_F64, 1, &numel[i]));
        s->offset[i] = s->n;
        s->n += numel[i];
    }
    AM_CHECK_OK(am_tensor_table_finish(&s->tensors));
    am_memory_identity(s->index, n_tensors);
    for (int k = 0; k < MODELS + 2; k++) {
        s->reals[k] = calloc((size_t)s->n + 1, sizeof(double));
        AM_CHECK(s->reals[k] != NULL);
        s->memory[k] = (am_memory){.label = labels[k],
                                   .tensors = &s->tensors,
                                   .dtype = AM_DTYPE_F64,
                                   .offset = s->offset,
                                   .reals = s->reals[k],
                                   .n = s->n};
    }
    for (int k = 0; k <= MODELS; k++) {
        s->source[k] = am_memory_source(&s->memory[k]);
        s->input[k] = (am_merge_input){.source = &s->source[k], .tensor = s->index};
    }
    s->sink = am_memory_sink(&s->memory[MODELS + 1]);
    s->job = (am_merge_job){.method = am_method_find(method),
                            .base = &s->input[0],
                            .n_models = MODELS,
                            .models = &s->input[1],
                            .sink = &s->sink,
                            .param = s->param,
                            .model_param = s->model_param,
                            .copy = s->copy,
                            .block = 1 << 20};
    set_parameters(s, s->job.method, weight);
}

/* Merge over all ranks, in units of `unit`, and gather the output (elements not stored are 0). */
static int run_all(scene *s, int64_t unit)
{
    am_slice slice;
    am_merge_result result;
    memset(s->reals[MODELS + 1], 0, (size_t)s->n * sizeof(double));
    AM_CHECK_OK(am_slice_make(&s->tensors, unit, am_world_size(), am_world_rank(), &slice));
    int rc = am_merge_run_all(am_world(), &s->job, &slice, &result);
    AM_CHECK(rc != 0 || result.elements == slice.elements);
    am_slice_free(&slice);
    if (rc != 0) {
        return rc; /* agreed */
    }
    /* each element has one writer: the sum of bit patterns is the pattern */
    int64_t *bits = (int64_t *)(void *)s->reals[MODELS + 1];
    AM_CHECK_OK(am_sum_i64_all(am_world(), bits, s->n));
    return rc;
}

/* METHODS 1.6, cases of task arithmetic; computed there by hand from the formula. */
static void known_answers_all(void)
{
    static const double tau[MODELS][10] = {{.8, -.1, .3, 0, -.5, .2, .02, -.01, .03, .04},
                                           {-.4, .6, .1, .05, -.2, .7, .01, .05, -.02, .03},
                                           {.1, .2, -.9, 0, -.3, -.6, -.06, .02, .01, -.01}};
    static const double expected[10] = {.15, .21, -.15, .015, -.3, .09, -.009, .018, .006, .018};
    static const int64_t numel[] = {6, 4};
    scene s;
    scene_open(&s, numel, 2, "task_arithmetic", (const double[]){.3, .3, .3});
    for (int m = 0; m < MODELS; m++) {
        memcpy(s.reals[m + 1], tau[m], sizeof tau[m]);
    }
    AM_CHECK_OK(run_all(&s, 2));
    for (int i = 0; i < 10; i++) {
        AM_CHECK_NEAR(s.reals[MODELS + 1][i], expected[i], 1e-15);
    }
    scene_close(&s);
}

static void fill(scene *s, uint64_t seed)
{
    for (int k = 0; k <= MODELS; k++) {
        am_rng rng = am_rng_make(seed, "test merge", 0, k, "");
        for (int64_t i = 0; i < s->n; i++) {
            s->reals[k][i] = am_rng_normal(&rng, i) * pow(10, (double)(i % 9) - 4);
        }
    }
}

/* theta_0 + sum w (theta - theta_0), or the weighted mean, straight from the formula. */
static double direct(const scene *s, const double *weight, int64_t i)
{
    double sum = 0, total = 0;
    const double base = s->job.method->needs_base ? s->reals[0][i] : 0;
    for (int m = 0; m < MODELS; m++) {
        sum += weight[m] * (s->reals[m + 1][i] - base);
        total += weight[m];
    }
    return s->job.method->needs_base ? base + sum : sum / total;
}

static void same_bytes_for_any_cut_all(void)
{
    static const int64_t numel[] = {1, 0, 5000, 4096, 1, 40000, 7, 3};
    static const double weight[] = {0.5, -0.2, 0.9};
    static const int64_t blocks[] = {1, 7, 4095, 4097, 1 << 20};
    static const char *const methods[] = {"linear", "task_arithmetic"};
    for (int k = 0; k < 2; k++) {
        scene s;
        scene_open(&s, numel, 8, methods[k], weight);
        fill(&s, am_test_seed());
        for (int b = 0; b < 5; b++) {
            s.job.block = blocks[b];
            AM_CHECK_OK(run_all(&s, b % 2 == 0 ? 100 : 4096));
            for (int64_t i = 0; i < s.n; i++) {
                if (!AM_CHECK_SAME_F64(s.reals[MODELS + 1][i], direct(&s, weight, i))) {
                    break;
                }
            }
        }
        scene_close(&s);
    }
}

/* A model that lacks a tensor takes no part in it; copied tensors come from the base, or from the
 * first model that has them. */
static void absent_and_copied_tensors_all(void)
{
    static const int64_t numel[] = {50, 50, 50};
    static const double weight[] = {1, 2, 3};
    static const int64_t lacking[] = {0, -1, -1};
    scene s;
    scene_open(&s, numel, 3, "task_arithmetic", weight);
    fill(&s, 3);
    s.input[1].tensor = lacking;
    s.copy[2] = true;
    AM_CHECK_OK(run_all(&s, 20));
    for (int64_t i = 50; i < 100; i++) {
        const double base = s.reals[0][i];
        const double sum = 2 * (s.reals[2][i] - base) + 3 * (s.reals[3][i] - base);
        AM_CHECK_SAME_F64(s.reals[MODELS + 1][i], base + sum);
    }
    for (int64_t i = 100; i < 150; i++) {
        AM_CHECK_SAME_F64(s.reals[MODELS + 1][i], s.reals[0][i]);
    }
    s.job.base = NULL;
    s.job.method = am_method_find("linear");
    set_parameters(&s, s.job.method, weight);
    AM_CHECK_OK(run_all(&s, 20));
    for (int64_t i = 100; i < 150; i++) {
        AM_CHECK_SAME_F64(s.reals[MODELS + 1][i], s.reals[2][i]);
    }
    scene_close(&s);
}

static void not_finite_is_named_all(void)
{
    static const int64_t numel[] = {10, 3000};
    static const double weight[] = {1, 1, 1};
    scene s;
    scene_open(&s, numel, 2, "task_arithmetic", weight);
    fill(&s, 4);
    s.reals[2][10 + 1234] = (double)NAN;
    s.job.block = 100;
    AM_CHECK_CODE(run_all(&s, 50), AM_E_DATA);
    AM_CHECK_CONTAINS(am_error_message(), "model 1: tensor 'tensor.01': element 1234 is NaN");
    am_error_clear();
    s.reals[2][10 + 1234] = -(double)INFINITY;
    AM_CHECK_CODE(run_all(&s, 50), AM_E_DATA);
    AM_CHECK_CONTAINS(am_error_message(), "element 1234 is infinite");
    am_error_clear();
    s.job.allow_nonfinite = true;
    AM_CHECK_OK(run_all(&s, 50));
    AM_CHECK(isinf(s.reals[MODELS + 1][10 + 1234]));
    scene_close(&s);
}

/* The largest double that still rounds to a finite f32 is kept, the next is an error. */
static void too_large_for_the_output_all(void)
{
    static const int64_t numel[] = {1000};
    static const double weight[] = {1, 0, 0};
    const double most = nextafter(0x1.FFFFFFp127, 0);
    am_tensor_table narrow = {0};
    scene s;
    scene_open(&s, numel, 1, "linear", weight);
    AM_CHECK_OK(am_tensor_table_copy(&s.tensors, &narrow));
    narrow.t[0].dtype = AM_DTYPE_F32;
    s.sink.tensors = &narrow;
    s.reals[1][777] = -most;
    AM_CHECK_OK(run_all(&s, 50));
    s.reals[1][777] = -0x1.FFFFFFp127;
    AM_CHECK_CODE(run_all(&s, 50), AM_E_NUMERIC);
    AM_CHECK_CONTAINS(am_error_message(), "tensor 'tensor.00': element 777 would be -3.40282e+38");
    am_error_clear();
    s.job.allow_nonfinite = true;
    AM_CHECK_OK(run_all(&s, 50));
    am_tensor_table_free(&narrow);
    scene_close(&s);
}

/* A sink that fails on one rank fails on all, with its message. */
static int fail_store(void *self, int64_t tensor, int64_t lo, int64_t n, const double *src)
{
    (void)self;
    (void)tensor;
    (void)lo;
    (void)n;
    (void)src;
    return am_fail(AM_E_IO, "planted by rank %d", am_world_rank());
}

static void failure_on_one_rank_all(void)
{
    static const int64_t numel[] = {1000};
    static const double weight[] = {1, 1, 1};
    scene s;
    scene_open(&s, numel, 1, "task_arithmetic", weight);
    if (am_world_rank() == am_world_size() - 1) {
        s.sink.store = fail_store;
    }
    s.job.block = 10;
    AM_CHECK_CODE(run_all(&s, 50), AM_E_IO);
    AM_CHECK_CONTAINS(am_error_message(), "planted by rank ");
    am_error_clear();
    scene_close(&s);
}

static void stop_request_ends_it_all(void)
{
    /* last: a request stays */
    static const int64_t numel[] = {1000};
    static const double weight[] = {1, 1, 1};
    scene s;
    scene_open(&s, numel, 1, "task_arithmetic", weight);
    if (am_world_rank() == 0) {
        am_request_stop();
    }
    AM_CHECK_CODE(run_all(&s, 50), AM_E_STOPPED);
    am_error_clear();
    scene_close(&s);
}

static const am_test tests[] = {AM_TEST(known_answers_all),
                                AM_TEST(same_bytes_for_any_cut_all),
                                AM_TEST(absent_and_copied_tensors_all),
                                AM_TEST(not_finite_is_named_all),
                                AM_TEST(too_large_for_the_output_all),
                                AM_TEST(failure_on_one_rank_all),
                                AM_TEST(stop_request_ends_it_all)};
AM_TEST_MAIN("merge", tests)
