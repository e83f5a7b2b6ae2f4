/* The threshold and random methods through the engine: known answers of both readings, and what
 * random masks promise: rates, independence, the same ones on any number of ranks.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/runtime.h"
#include "tests/am_test.h"
#include "tests/merge_once.h"

enum { A = 6, B = 4, N = A + B, MODELS = 3 };

/* METHODS 1.6: tensors a and b, base 0. */
static const double tau[MODELS][N] = {{.8, -.1, .3, 0, -.5, .2, .02, -.01, .03, .04},
                                      {-.4, .6, .1, .05, -.2, .7, .01, .05, -.02, .03},
                                      {.1, .2, -.9, 0, -.3, -.6, -.06, .02, .01, -.01}};
static const double zeros[N];

static void open_small(am_merge_once *m, am_tensor_table *table, const char *method, int models)
{
    static const int64_t a[] = {A}, b[] = {B};
    memset(table, 0, sizeof *table);
    AM_CHECK_OK(am_tensor_table_add(table, "a", AM_DTYPE_F64, 1, a));
    AM_CHECK_OK(am_tensor_table_add(table, "b", AM_DTYPE_F64, 1, b));
    AM_CHECK_OK(am_tensor_table_finish(table));
    *m = (am_merge_once){
        .method = am_method_find(method), .tensors = table, .models = models, .base = zeros};
    for (int t = 0; t < models; t++) {
        m->x[t] = tau[t];
    }
    am_merge_once_defaults(m);
}

/* A parameter that is set for all; ends with a NULL key. */
typedef struct setting {
    const char *key;
    double value;
} setting;

typedef struct answer {
    const char *method;
    int models;
    am_scope scope;
    am_semantics semantics;
    setting set[4];
    int task; /* model whose `task` is set, -1: none */
    int n;    /* how many of the values are compared */
    double expected[N];
} answer;

#define ALL_ONE                                                                                    \
    {                                                                                              \
        "weight", 1                                                                                \
    }

static const answer answers[] = {
    {"ties",
     3,
     AM_SCOPE_GLOBAL,
     AM_SEMANTICS_PAPER,
     {ALL_ONE, {"density", .5}},
     -1,
     N,
     {.45, .4, -.9, .05, -1. / 3, .45, -.06, .05, 0, .04}},
    {"ties",
     3,
     AM_SCOPE_GLOBAL,
     AM_SEMANTICS_PAPER,
     {ALL_ONE, {"density", .5}, {"normalize", 0}},
     -1,
     N,
     {.9, .8, -.9, .05, -1, .9, -.06, .05, 0, .04}},
    {"ties",
     3,
     AM_SCOPE_GLOBAL,
     AM_SEMANTICS_PAPER,
     {ALL_ONE, {"density", .5}, {"merge_max", 1}},
     -1,
     N,
     {.8, .6, -.9, .05, -.5, .7, -.06, .05, 0, .04}},
    {"ties",
     3,
     AM_SCOPE_TENSOR,
     AM_SEMANTICS_MERGEKIT,
     {ALL_ONE, {"density", .5}},
     -1,
     N,
     {.8, .6, -.9, 0, -.4, .7, -.06, .035, .03, .035}},
    {"breadcrumbs",
     1,
     AM_SCOPE_TENSOR,
     AM_SEMANTICS_MERGEKIT,
     {ALL_ONE, {"density", .5}, {"gamma", .2}},
     -1,
     N,
     {0, 0, .3, 0, -.5, .2, 0, 0, 0, 0}}, /* b: int(.2 * 4) = 0 empties it */
    {"breadcrumbs",
     1,
     AM_SCOPE_TENSOR,
     AM_SEMANTICS_PAPER,
     {ALL_ONE, {"density", .5}, {"gamma", .2}},
     -1,
     N,
     {0, 0, .3, 0, -.5, .2, 0, 0, .03, .04}},
    {"emr", 3, AM_SCOPE_GLOBAL, 0, {{0}}, -1, N, {.8, .6, -.9, .05, -.5, .7, -.06, .05, .03, .04}},
    {"emr",
     3,
     AM_SCOPE_GLOBAL,
     0,
     {{0}},
     0,
     N,
     {.966184 * .8, 0, 0, 0, .966184 * -.5, .966184 * .7, 0, 0, .966184 * .03, .966184 * .04}},
    {"emr",
     3,
     AM_SCOPE_GLOBAL,
     0,
     {{0}},
     1,
     N,
     {0, 1.113402 * .6, 0, 1.113402 * .05, 1.113402 * -.5, 1.113402 * .7, 0, 1.113402 * .05, 0,
      1.113402 * .04}},
    {"emr",
     3,
     AM_SCOPE_GLOBAL,
     0,
     {{0}},
     2,
     N,
     {.748299 * .8, .748299 * .6, .748299 * -.9, 0, .748299 * -.5, 0, .748299 * -.06, .748299 * .05,
      .748299 * .03, 0}},
    {"sce", 3, AM_SCOPE_TENSOR, 0, {{0}}, -1, A, {.40812, .379136, -.9, .05, -.329317, .453883}},
    {"sce", 3, AM_SCOPE_TENSOR, 0, {{"select_topk", .5}}, -1, A, {.37641, 0, -.9, 0, 0, .430769}},
    {"tall", 3, 0, 0, {{0}}, -1, N, {.15, .21, -.15, 0, -.3, .09, -.009, .018, .006, .018}},
    {"tall",
     3,
     0,
     0,
     {{"agree", 1}},
     -1,
     N,
     {.15, .21, -.15, .015, -.3, .09, -.009, .018, .006, .018}},
    {"tall", 3, 0, 0, {{0}}, 0, N, {.15, 0, -.15, 0, -.3, .09, -.009, 0, .006, .018}},
    {"emr",
     3,
     AM_SCOPE_GLOBAL,
     0,
     {{"tensor_means", 1}},
     0,
     N,
     {0.973872 * 0.8, 0, 0, 0, 0.973872 * -0.5, 0.973872 * 0.7, 0, 0, 0.973872 * 0.03,
      0.973872 * 0.04}},
    {"emr",
     3,
     AM_SCOPE_GLOBAL,
     0,
     {{"tensor_means", 1}},
     1,
     N,
     {0, 1.115869 * 0.6, 0, 1.115869 * 0.05, 1.115869 * -0.5, 1.115869 * 0.7, 0, 1.115869 * 0.05, 0,
      1.115869 * 0.04}},
    {"emr",
     3,
     AM_SCOPE_GLOBAL,
     0,
     {{"tensor_means", 1}},
     2,
     N,
     {0.747508 * 0.8, 0.747508 * 0.6, 0.747508 * -0.9, 0, 0.747508 * -0.5, 0, 0.747508 * -0.06,
      0.747508 * 0.05, 0.747508 * 0.03, 0}},
    {"tall", 3, 0, 0, {{0}}, 1, N, {0.15, 0.21, 0, 0.015, -0.3, 0.09, -0.009, 0.018, 0.006, 0.018}},
    {"tall", 3, 0, 0, {{0}}, 2, N, {0.15, 0.21, -0.15, 0, -0.3, 0.09, -0.009, 0.018, 0.006, 0}},
    {"tall", 3, 0, 0, {{"agree", 3}}, -1, N, {0.15, 0, 0, 0, -0.3, 0.09, -0.009, 0, 0.006, 0}},
    {"sce",
     3,
     AM_SCOPE_TENSOR,
     AM_SEMANTICS_PAPER,
     {{0}},
     -1,
     A,
     {.40812, .379136, -.9, .05, -.329317, .453883}},
    {"sce",
     3,
     AM_SCOPE_TENSOR,
     AM_SEMANTICS_PAPER,
     {{"select_topk", .5}},
     -1,
     A,
     {.37641, 0, -.9, 0, 0, .430769}},
    {"incremental", 3, 0, 0, {{0}}, -1, A, {.05, .2375, -.3875, .0125, -.2625, -.1}},
    {"incremental",
     3,
     0,
     0,
     {{"lambda", .3}, {"from_base", 1}},
     -1,
     A,
     {.15, .21, -.15, .015, -.3, .09}},
    {"magmax", 3, 0, 0, {{"lambda", 1}}, -1, N, {.8, .6, -.9, .05, -.5, .7, -.06, .05, .03, .04}},
};

static void known_answers_all(void)
{
    for (size_t k = 0; k < sizeof answers / sizeof answers[0]; k++) {
        const answer *a = &answers[k];
        am_merge_once m;
        am_tensor_table table;
        double out[N];
        open_small(&m, &table, a->method, a->models);
        m.scope = a->scope;
        m.semantics = a->semantics;
        for (int i = 0; i < 4 && a->set[i].key != NULL; i++) {
            am_merge_once_set(&m, a->set[i].key, -1, a->set[i].value);
        }
        if (a->task >= 0) {
            am_merge_once_set(&m, "task", a->task, 1);
        }
        AM_CHECK_OK(am_merge_once_all(am_world(), &m, out));
        for (int i = 0; i < a->n; i++) {
            if (!AM_CHECK_NEAR(out[i], a->expected[i], 1e-6)) {
                fprintf(stderr, "answer %zu (%s), element %d\n", k, a->method, i);
            }
        }
        am_tensor_table_free(&table);
    }
}

/* Sums of exactly 0 take the sign of most of the unit in the paper, + in mergekit. */
static void undecided_sign_all(void)
{
    static const double x[2][N] = {{.5, -.1, -.2, -.3, .25}, {-.5, -.1, -.2, -.3, .25}};
    for (int is_paper = 0; is_paper < 2; is_paper++) {
        am_merge_once m;
        am_tensor_table table;
        double out[N];
        open_small(&m, &table, "ties", 2);
        m.x[0] = x[0];
        m.x[1] = x[1];
        m.semantics = is_paper ? AM_SEMANTICS_PAPER : AM_SEMANTICS_MERGEKIT;
        am_merge_once_set(&m, "weight", -1, 1);
        AM_CHECK_OK(am_merge_once_all(am_world(), &m, out));
        AM_CHECK_SAME_F64(out[0], is_paper ? -.5 : .5);
        AM_CHECK_NEAR(out[1], -.1, 1e-15);
        am_tensor_table_free(&table);
    }
}

/* ---- random masks ---- */

enum { ROWS = 200, COLS = 501, LARGE = ROWS * COLS, RANDOM_MODELS = 2 };

typedef struct large {
    am_merge_once m;
    am_tensor_table table;
    double *base, *x[RANDOM_MODELS], *out;
} large;

/* Two tensors' worth of elements in one: task vectors 1, 2, 3, ... in every row, over a base of 0.
 */
static void open_large(large *l, const char *method, const char *tensor)
{
    static const int64_t shape[] = {ROWS, COLS};
    memset(l, 0, sizeof *l);
    AM_CHECK_OK(am_tensor_table_add(&l->table, tensor, AM_DTYPE_F64, 2, shape));
    AM_CHECK_OK(am_tensor_table_finish(&l->table));
    l->base = calloc(LARGE, sizeof(double));
    l->out = calloc(LARGE, sizeof(double));
    l->m = (am_merge_once){.method = am_method_find(method),
                           .tensors = &l->table,
                           .models = RANDOM_MODELS,
                           .base = l->base,
                           .semantics = AM_SEMANTICS_PAPER};
    for (int t = 0; t < RANDOM_MODELS; t++) {
        l->x[t] = calloc(LARGE, sizeof(double));
        for (int64_t i = 0; l->x[t] != NULL && i < LARGE; i++) {
            l->x[t][i] = (double)(1 + i % COLS);
        }
        l->m.x[t] = l->x[t];
    }
    am_merge_once_defaults(&l->m);
    am_merge_once_set(&l->m, "normalize", -1, 0);
}

static void close_large(large *l)
{
    am_tensor_table_free(&l->table);
    free(l->base);
    free(l->out);
    for (int t = 0; t < RANDOM_MODELS; t++) {
        free(l->x[t]);
    }
}

/* Model t alone. */
static void run_model_all(large *l, int t)
{
    am_merge_once_set(&l->m, "weight", -1, 0);
    am_merge_once_set(&l->m, "weight", t, 1);
    AM_CHECK_OK(am_merge_once_all(am_world(), &l->m, l->out));
}

static bool is_within(double count, double n, double p, double sigmas)
{
    return fabs(count - n * p) <= sigmas * sqrt(n * p * (1 - p));
}

static void dare_rates_all(void)
{
    enum { BINS = 50 };
    const double p = .3;
    large l;
    open_large(&l, "dare_linear", "w");
    am_merge_once_set(&l.m, "density", -1, p);
    run_model_all(&l, 0);
    double kept = 0, sum = 0, wanted = 0, variance = 0, chi = 0, bin[BINS] = {0};
    for (int64_t i = 0; i < LARGE; i++) {
        const bool is_kept = l.out[i] != 0;
        AM_CHECK(!is_kept || fabs(l.out[i] - l.x[0][i] / p) < 1e-9);
        kept += is_kept;
        bin[i * BINS / LARGE] += is_kept;
        sum += l.out[i];
        wanted += l.x[0][i];
        variance += l.x[0][i] * l.x[0][i] * (1 - p) / p;
    }
    AM_CHECK(is_within(kept, LARGE, p, 5));
    AM_CHECK(fabs(sum - wanted) <= 5 * sqrt(variance)); /* the expected value is the task vector */
    for (int k = 0; k < BINS; k++) {
        const double n = (double)LARGE / BINS;
        chi += (bin[k] - n * p) * (bin[k] - n * p) / (n * p * (1 - p));
    }
    AM_CHECK(chi < BINS + 5 * sqrt(2. * BINS) && chi > BINS - 5 * sqrt(2. * BINS));
    close_large(&l);
}

/* Masks of another model, seed, tensor or method agree as often as chance says. */
static void masks_are_independent_all(void)
{
    const double p = .4, agree = p * p + (1 - p) * (1 - p);
    static const struct {
        const char *method, *tensor;
        int model;
        uint64_t seed;
    } other[] = {{"dare_linear", "w", 1, 0},
                 {"dare_linear", "w", 0, 1},
                 {"dare_linear", "v", 0, 0},
                 {"dare_ties", "w", 0, 0}};
    large first;
    open_large(&first, "dare_linear", "w");
    am_merge_once_set(&first.m, "density", -1, p);
    run_model_all(&first, 0);
    for (int k = 0; k < 4; k++) {
        large l;
        double same = 0;
        open_large(&l, other[k].method, other[k].tensor);
        am_merge_once_set(&l.m, "density", -1, p);
        l.m.seed = other[k].seed;
        run_model_all(&l, other[k].model);
        for (int64_t i = 0; i < LARGE; i++) {
            same += (l.out[i] != 0) == (first.out[i] != 0);
        }
        AM_CHECK(is_within(same, LARGE, agree, 5));
        close_large(&l);
    }
    close_large(&first);
}

/* Keep rates of the smallest and the largest third of every row, and the expected value. */
static void della_rates_all(void)
{
    const double density = .5, epsilon = .3;
    large l;
    open_large(&l, "della_linear", "w");
    am_merge_once_set(&l.m, "density", -1, density);
    am_merge_once_set(&l.m, "epsilon", -1, epsilon);
    run_model_all(&l, 0);
    double kept[3] = {0}, wanted[3] = {0}, variance[3] = {0}, sum = 0, total = 0, spread = 0;
    for (int64_t i = 0; i < LARGE; i++) {
        const double rank = (double)(i % COLS);
        const double p = density - epsilon + 2 * epsilon * rank / (COLS - 1);
        const int third = (int)(3 * rank / COLS);
        kept[third] += l.out[i] != 0;
        wanted[third] += p;
        variance[third] += p * (1 - p);
        sum += l.out[i];
        total += l.x[0][i];
        spread += l.x[0][i] * l.x[0][i] * (1 - p) / p;
    }
    for (int k = 0; k < 3; k++) {
        AM_CHECK(fabs(kept[k] - wanted[k]) <= 5 * sqrt(variance[k]));
    }
    AM_CHECK(fabs(sum - total) <= 5 * sqrt(spread));
    close_large(&l);
}

/* However slices and batches are cut: the same bits; with mergekit's norms too. */
static void same_masks_for_any_cut_all(void)
{
    static const char *const methods[] = {"dare_linear", "dare_ties", "della", "della_linear"};
    double *first = calloc(LARGE, sizeof(double));
    AM_CHECK(first != NULL);
    for (int k = 0; k < 4; k++) {
        large l;
        open_large(&l, methods[k], "w");
        l.m.semantics = AM_SEMANTICS_MERGEKIT;
        am_merge_once_set(&l.m, "density", -1, .5);
        am_merge_once_set(&l.m, "weight", -1, .5);
        AM_CHECK_OK(am_merge_once_all(MPI_COMM_SELF, &l.m, first));
        l.m.block = 1000 + 777 * k;
        l.m.unit = 501;
        AM_CHECK_OK(am_merge_once_all(am_world(), &l.m, l.out));
        AM_CHECK(memcmp(first, l.out, LARGE * sizeof(double)) == 0);
        close_large(&l);
    }
    free(first);
}

/* Nothing dropped: no randomness is left. */
static void density_one_is_plain_all(void)
{
    static const char *const pairs[][2] = {{"dare_linear", "task_arithmetic"},
                                           {"della_linear", "task_arithmetic"},
                                           {"breadcrumbs", "task_arithmetic"},
                                           {"dare_ties", "ties"},
                                           {"della", "ties"},
                                           {"breadcrumbs_ties", "ties"}};
    for (size_t k = 0; k < sizeof pairs / sizeof pairs[0]; k++) {
        double out[2][N];
        for (int i = 0; i < 2; i++) {
            am_merge_once m;
            am_tensor_table table;
            open_small(&m, &table, pairs[k][i], MODELS);
            am_merge_once_set(&m, "normalize", -1, 0);
            for (int t = 0; t < MODELS; t++) {
                am_merge_once_set(&m, "weight", t, .5 - .4 * t);
            }
            AM_CHECK_OK(am_merge_once_all(am_world(), &m, out[i]));
            am_tensor_table_free(&table);
        }
        AM_CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0);
    }
}

static const am_test tests[] = {
    AM_TEST(known_answers_all),       AM_TEST(undecided_sign_all),
    AM_TEST(dare_rates_all),          AM_TEST(masks_are_independent_all),
    AM_TEST(della_rates_all),         AM_TEST(same_masks_for_any_cut_all),
    AM_TEST(density_one_is_plain_all)};
AM_TEST_MAIN("sparse", tests)
