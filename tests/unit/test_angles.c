/* Methods on angles: known answers, small eigenproblems, vectors without a direction, and the same
 * bytes for any number of ranks and any cut. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/rng.h"
#include "mpi/runtime.h"
#include "solver/merge/angles.h"
#include "tests/am_test.h"
#include "tests/merge_once.h"

enum { N = 6 };

/* METHODS 1.6, tensor a. */
static const double tau[3][N] = {
    {.8, -.1, .3, 0, -.5, .2}, {-.4, .6, .1, .05, -.2, .7}, {.1, .2, -.9, 0, -.3, -.6}};

static void open_vectors(am_merge_once *m, am_tensor_table *table, const char *method, int models)
{
    static const int64_t shape[] = {N};
    memset(table, 0, sizeof *table);
    AM_CHECK_OK(am_tensor_table_add(table, "a", AM_DTYPE_F64, 1, shape));
    AM_CHECK_OK(am_tensor_table_finish(table));
    *m = (am_merge_once){.method = am_method_find(method), .tensors = table, .models = models};
    for (int t = 0; t < models; t++) {
        m->x[t] = tau[t];
    }
    am_merge_once_defaults(m);
}

static void check_result_all(const am_merge_once *m, const double *expected, double tolerance)
{
    double out[N];
    AM_CHECK_OK(am_merge_once_all(am_world(), m, out));
    for (int i = 0; i < N; i++) {
        AM_CHECK_NEAR(out[i], expected[i], tolerance);
    }
}

static void slerp_known_answer_all(void)
{
    static const double expected[N] = {.547896, .198045, .326612, .02423, -.560507, .524658};
    am_merge_once m;
    am_tensor_table table;
    open_vectors(&m, &table, "slerp", 1);
    m.base = tau[0];
    m.x[0] = tau[1];
    am_merge_once_set(&m, "t", -1, .3);
    check_result_all(&m, expected, 1e-6);
    am_tensor_table_free(&table);
    open_vectors(&m, &table, "nuslerp", 2);
    am_merge_once_set(&m, "weight", 0, .7);
    am_merge_once_set(&m, "weight", 1, .3);
    check_result_all(&m, expected, 1e-6);
    am_tensor_table_free(&table);
}

static void multislerp_known_answers_all(void)
{
    static const double equal[N] = {.380941, .514321, -.307612, .037898, -.741296, .274971};
    static const double weighted[N] = {.583464, .31686, .038814, .028763, -.705566, .390213};
    static const double weight[] = {.5, .3, .2}, zero[N] = {0};
    am_merge_once m;
    am_tensor_table table;
    open_vectors(&m, &table, "multislerp", 3);
    am_merge_once_set(&m, "weight", -1, 1);
    check_result_all(&m, equal, 1e-6);
    m.base = zero;
    check_result_all(&m, equal, 1e-6);
    for (int t = 0; t < 3; t++) {
        am_merge_once_set(&m, "weight", t, weight[t]);
    }
    check_result_all(&m, weighted, 1e-6);
    am_tensor_table_free(&table);
}

static void karcher_known_answer_all(void)
{
    static const double expected[N] = {.362417, .52489, -.327177, .038343, -.737478, .267558};
    am_merge_once m;
    am_tensor_table table;
    open_vectors(&m, &table, "karcher", 3);
    check_result_all(&m, expected, 1e-6);
    am_tensor_table_free(&table);
}

/* t mean(tau), for a base of zero and for one that is not. */
static void model_stock_known_answers_all(void)
{
    static const double t[] = {-.929092, -.935928};
    static const am_semantics semantics[] = {AM_SEMANTICS_MERGEKIT, AM_SEMANTICS_PAPER};
    double base[N], moved[3][N], expected[N];
    am_merge_once m;
    am_tensor_table table;
    open_vectors(&m, &table, "model_stock", 3);
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < N; i++) {
            base[i] = k / 2 * (i - 2.5);
            expected[i] = base[i] + t[k % 2] * (tau[0][i] + tau[1][i] + tau[2][i]) / 3;
            for (int model = 0; model < 3; model++) {
                moved[model][i] = base[i] + tau[model][i];
                m.x[model] = moved[model];
            }
        }
        m.base = base;
        m.semantics = semantics[k % 2];
        check_result_all(&m, expected, 1e-6);
    }
    am_tensor_table_free(&table);
}

/* Gram over a|b: diagonal 1.033, 1.0664, 1.3142; what is conflicting there is taken out. */
static void gram_over_all_tensors_all(void)
{
    static const double b[3][4] = {
        {.02, -.01, .03, .04}, {.01, .05, -.02, .03}, {-.06, .02, .01, -.01}};
    static const double g[] = {1.033, -.1097, 1.0664, -.1815, -.3701, 1.3142}, zero[10] = {0};
    static const int64_t shape[] = {6, 4};
    double x[3][10], out[10], c[3] = {0};
    am_merge_once m;
    am_tensor_table table = {0};
    AM_CHECK_OK(am_tensor_table_add(&table, "a", AM_DTYPE_F64, 1, &shape[0]));
    AM_CHECK_OK(am_tensor_table_add(&table, "b", AM_DTYPE_F64, 1, &shape[1]));
    AM_CHECK_OK(am_tensor_table_finish(&table));
    m = (am_merge_once){.method = am_method_find("metagpt"), .tensors = &table, .models = 3};
    am_merge_once_defaults(&m);
    m.base = zero;
    for (int t = 0; t < 3; t++) {
        memcpy(x[t], tau[t], sizeof tau[t]);
        memcpy(x[t] + N, b[t], sizeof b[t]);
        m.x[t] = x[t];
        c[t] = am_gram_at(g, t, t) / (1.033 + 1.0664 + 1.3142);
    }
    AM_CHECK_OK(am_merge_once_all(am_world(), &m, out));
    for (int i = 0; i < 10; i++) {
        AM_CHECK_NEAR(out[i], c[0] * x[0][i] + c[1] * x[1][i] + c[2] * x[2][i], 1e-12);
    }
    am_tensor_table_free(&table);
}

/* ---- edges ---- */

static void equal_models_stay_all(void)
{
    static const char *const methods[] = {"nuslerp", "multislerp", "karcher", "model_stock"};
    static const double base[N] = {.1, .2, .3, .4, .5, .6};
    am_merge_once m;
    am_tensor_table table;
    for (int k = 0; k < 4; k++) {
        open_vectors(&m, &table, methods[k], 2);
        m.x[1] = m.x[0];
        m.base = m.method->needs_base ? base : NULL;
        if (k < 2) {
            am_merge_once_set(&m, "weight", -1, .5);
        }
        check_result_all(&m, tau[0], 1e-14);
        am_tensor_table_free(&table);
    }
}

/* What cancels is said, with the tensor's name; weights that cancel meet in the middle. */
static void opposite_vectors_all(void)
{
    double minus[N], out[N], nothing[N] = {0};
    am_merge_once m;
    am_tensor_table table;
    for (int i = 0; i < N; i++) {
        minus[i] = -tau[0][i];
    }
    open_vectors(&m, &table, "multislerp", 2);
    m.x[1] = minus;
    am_merge_once_set(&m, "weight", -1, 1);
    check_result_all(&m, nothing, 1e-15); /* two models: the weighted mean */
    m.models = 3;
    m.x[2] = nothing;
    AM_CHECK_CODE(am_merge_once_all(am_world(), &m, out), AM_E_NUMERIC);
    AM_CHECK_CONTAINS(am_error_message(), "tensor 'a'");
    AM_CHECK_CONTAINS(am_error_message(), "cancel");
    am_error_clear();
    am_tensor_table_free(&table);
    open_vectors(&m, &table, "nuslerp", 2);
    m.x[1] = minus;
    am_merge_once_set(&m, "weight", 0, -1);
    am_merge_once_set(&m, "weight", 1, 1);
    check_result_all(&m, nothing, 1e-15);
    am_tensor_table_free(&table);
}

static void rows_need_tensors_all(void)
{
    static const struct {
        const char *method, *key;
        double value;
    } cases[] = {{"nuslerp", "nuslerp_flatten", 0}, {"model_stock", "filter_wise", 1}};
    static const double zero[N] = {0};
    double out[N];
    am_merge_once m;
    am_tensor_table table;
    for (int k = 0; k < 2; k++) {
        open_vectors(&m, &table, cases[k].method, 2);
        m.base = zero;
        m.scope = AM_SCOPE_GLOBAL;
        am_merge_once_set(&m, cases[k].key, -1, cases[k].value);
        AM_CHECK_CODE(am_merge_once_all(am_world(), &m, out), AM_E_NUMERIC);
        AM_CHECK_CONTAINS(am_error_message(), cases[k].key);
        AM_CHECK_CONTAINS(am_error_message(), "needs scope: tensor");
        am_error_clear();
        am_tensor_table_free(&table);
    }
}

/* ---- any cut ---- */

enum { BIG = 20000 + 6 * 700 + 5 };

/* Tensors of several tiles, rows longer than a tile, in units and blocks that cut anywhere. */
static void same_bytes_for_any_cut_all(void)
{
    static const struct {
        const char *method, *key, *key2;
        double value, value2;
        int models;
        bool is_local; /* no scope global */
    } cases[] = {{"slerp", "t", "t", .3, .3, 1, false},
                 {"nuslerp", "weight", "nuslerp_flatten", 2, 1, 2, false},
                 {"nuslerp", "nuslerp_flatten", "nuslerp_row_wise", 0, 0, 2, true},
                 {"nuslerp", "nuslerp_flatten", "nuslerp_row_wise", 0, 1, 2, true},
                 {"multislerp", "weight", "eps", .4, 1e-8, 3, false},
                 {"karcher", "tol", "max_iter", 1e-5, 10, 3, false},
                 {"model_stock", "filter_wise", "filter_wise", 0, 0, 3, false},
                 {"model_stock", "filter_wise", "filter_wise", 1, 1, 3, true},
                 {"metagpt", "lambda", "lambda", .7, .7, 3, false},
                 {"pcgrad", "weight", "lambda", .5, .7, 3, false},
                 {"orthogonalise", "weight", "symmetric", .5, 1, 3, false},
                 {"pca", "weight", "components", .5, 2, 3, false}};
    static const int64_t shape[3][2] = {{4, 5000}, {700, 6}, {5, 1}};
    static const int64_t blocks[] = {1, 4097, 1 << 20}, units[] = {100, 4096, 1000};
    static double reals[4][BIG], out[2][BIG];
    am_tensor_table table = {0};
    for (int i = 0; i < 3; i++) {
        const char name[] = {(char)('a' + i), 0};
        AM_CHECK_OK(am_tensor_table_add(&table, name, AM_DTYPE_F64, 2, shape[i]));
    }
    AM_CHECK_OK(am_tensor_table_finish(&table));
    for (int k = 0; k < 4; k++) {
        const am_rng rng = am_rng_make(am_test_seed(), "angles", 0, k, "");
        for (int64_t i = 0; i < BIG; i++) {
            reals[k][i] = am_rng_normal(&rng, i);
        }
    }
    for (size_t k = 0; k < 2 * sizeof cases / sizeof cases[0]; k++) {
        am_merge_once m = {.method = am_method_find(cases[k / 2].method),
                           .tensors = &table,
                           .models = cases[k / 2].models,
                           .base = reals[0],
                           .x = {reals[1], reals[2], reals[3]},
                           .scope = k % 2 == 0 ? AM_SCOPE_TENSOR : AM_SCOPE_GLOBAL,
                           .seed = 3};
        am_merge_once_defaults(&m);
        am_merge_once_set(&m, cases[k / 2].key, -1, cases[k / 2].value);
        am_merge_once_set(&m, cases[k / 2].key2, -1, cases[k / 2].value2);
        if (k % 2 == 1 && cases[k / 2].is_local) {
            continue;
        }
        AM_CHECK_OK(am_merge_once_all(MPI_COMM_SELF, &m, out[0]));
        for (int b = 0; b < 3; b++) {
            m.block = blocks[b];
            m.unit = units[b];
            AM_CHECK_OK(am_merge_once_all(am_world(), &m, out[1]));
            AM_CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0);
        }
    }
    am_tensor_table_free(&table);
}

/* ---- eigenvalues ---- */

/* A v = v diag(l), V orthogonal, trace kept; a matrix of ones has one eigenvalue, n. */
static void eigenvalues(void)
{
    static double a[32 * 32], kept[32 * 32], v[32 * 32];
    for (int n = 1; n <= 32; n = n * 3 / 2 + 1) {
        const am_rng rng = am_rng_make(am_test_seed(), "eigen", 0, n, "");
        for (int i = 0; i < n; i++) {
            for (int j = 0; j <= i; j++) {
                a[i * n + j] = a[j * n + i] = am_rng_normal(&rng, i * n + j);
            }
        }
        memcpy(kept, a, sizeof a);
        AM_CHECK(am_eigen_symmetric(a, v, n));
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < n; k++) {
                double left = 0, inner = 0;
                for (int j = 0; j < n; j++) {
                    left += kept[i * n + j] * v[j * n + k];
                    inner += v[j * n + i] * v[j * n + k];
                }
                AM_CHECK_NEAR(left, a[k * n + k] * v[i * n + k], 1e-12);
                AM_CHECK_NEAR(inner, i == k, 1e-13);
            }
        }
    }
    for (int i = 0; i < 25; i++) {
        a[i] = 1;
    }
    AM_CHECK(am_eigen_symmetric(a, v, 5));
    double largest = 0, sum = 0;
    for (int k = 0; k < 5; k++) {
        largest = fmax(largest, a[k * 5 + k]);
        sum += fabs(a[k * 5 + k]);
    }
    AM_CHECK_NEAR(largest, 5, 1e-14);
    AM_CHECK_NEAR(sum, 5, 1e-14);
    a[0] = (double)NAN;
    AM_CHECK(!am_eigen_symmetric(a, v, 5));
}

static const am_test tests[] = {
    AM_TEST(slerp_known_answer_all),     AM_TEST(multislerp_known_answers_all),
    AM_TEST(karcher_known_answer_all),   AM_TEST(model_stock_known_answers_all),
    AM_TEST(gram_over_all_tensors_all),  AM_TEST(equal_models_stay_all),
    AM_TEST(opposite_vectors_all),       AM_TEST(rows_need_tensors_all),
    AM_TEST(same_bytes_for_any_cut_all), AM_TEST(eigenvalues)};
AM_TEST_MAIN("angles", tests)
