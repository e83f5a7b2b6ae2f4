/* Lanczos and power iteration on matrices whose eigenvalues are known: diagonal ones, and dense
 * ones made of them by reflections; on the Hessian of a small network against its dense matrix.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/error.h"
#include "mpi/rng.h"
#include "solver/analysis/eigen.h"
#include "solver/linalg/tridiagonal.h"
#include "solver/merge/angles.h"
#include "solver/training/preset.h"
#include "solver/training/train.h"
#include "tests/am_test.h"
#include "tests/ref_net.h"

enum { MOST_WANTED = 12, REFLECTIONS = 3 };

/* A = R diag(d) R, R a product of reflections x - 2 u (u . x) and its transpose. */
typedef struct matrix {
    int64_t n;
    double *d;         /* [n] */
    double *u;         /* [REFLECTIONS, n] of length 1; NULL: diagonal */
    int64_t fails, at; /* the at-th product is not finite (fails 1) or an error (fails 2) */
} matrix;

static void reflect(const matrix *a, int i, double *x)
{
    const double *u = a->u + i * a->n;
    double sum = 0;
    for (int64_t k = 0; k < a->n; k++) {
        sum += u[k] * x[k];
    }
    for (int64_t k = 0; k < a->n; k++) {
        x[k] -= 2 * sum * u[k];
    }
}

static int apply(void *self, const double *v, double *out)
{
    matrix *a = self;
    memcpy(out, v, (size_t)a->n * sizeof *out);
    for (int i = 0; a->u != NULL && i < REFLECTIONS; i++) {
        reflect(a, i, out);
    }
    for (int64_t k = 0; k < a->n; k++) {
        out[k] *= a->d[k];
    }
    for (int i = REFLECTIONS - 1; a->u != NULL && i >= 0; i--) {
        reflect(a, i, out);
    }
    if (a->fails > 0 && a->at-- == 0) {
        out[0] = NAN;
        return a->fails == 2 ? am_fail(AM_E_IO, "product fails") : 0;
    }
    return 0;
}

static matrix matrix_make(int64_t n, const double *d, bool is_dense)
{
    matrix a = {.n = n, .d = calloc((size_t)n, sizeof *a.d)};
    memcpy(a.d, d, (size_t)n * sizeof *d);
    if (is_dense) {
        a.u = calloc((size_t)(REFLECTIONS * n), sizeof *a.u);
        const am_rng rng = am_rng_make(am_test_seed(), "reflections", n, 0, "");
        for (int i = 0; i < REFLECTIONS; i++) {
            double sum = 0;
            for (int64_t k = 0; k < n; k++) {
                a.u[i * n + k] = am_rng_normal(&rng, i * n + k);
                sum += a.u[i * n + k] * a.u[i * n + k];
            }
            for (int64_t k = 0; k < n; k++) {
                a.u[i * n + k] /= sqrt(sum);
            }
        }
    }
    return a;
}

static void matrix_free(matrix *a)
{
    free(a->d);
    free(a->u);
}

typedef struct found {
    double value[MOST_WANTED], residual[MOST_WANTED], *vector;
    am_eigen_result result;
} found;

static void found_make(found *f, const matrix *a)
{
    f->vector = calloc((size_t)(MOST_WANTED * a->n), sizeof *f->vector);
    f->result = (am_eigen_result){.value = f->value, .residual = f->residual, .vector = f->vector};
}

/* The first values are `expected`; vectors have length 1, are orthogonal, and their residuals,
 * measured here, are no more than what is said. */
static void check_found(matrix *a, const found *f, int wanted, const double *expected, double size)
{
    double *w = calloc((size_t)a->n, sizeof *w);
    AM_CHECK(f->result.is_converged);
    for (int i = 0; i < wanted; i++) {
        const double *x = f->vector + i * a->n;
        double square = 0;
        AM_CHECK_NEAR(f->value[i], expected[i], 1e-12 * size + f->residual[i]);
        AM_CHECK_OK(apply(a, x, w));
        for (int64_t k = 0; k < a->n; k++) {
            square += (w[k] - f->value[i] * x[k]) * (w[k] - f->value[i] * x[k]);
        }
        AM_CHECK(sqrt(square) <= 1.01 * f->residual[i] + 1e-14 * (double)a->n * size);
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t k = 0; k < a->n; k++) {
                sum += x[k] * f->vector[j * a->n + k];
            }
            AM_CHECK_NEAR(sum, i == j ? 1 : 0, 1e-12);
        }
    }
    free(w);
}

static void check_spectrum(int64_t n, const double *d, am_eigen_order order, int wanted,
                           const double *expected)
{
    double size = 0;
    for (int64_t k = 0; k < n; k++) {
        size = fmax(size, fabs(d[k]));
    }
    for (int is_dense = 0; is_dense < 2; is_dense++) {
        matrix a = matrix_make(n, d, is_dense == 1);
        const am_operator op = {.self = &a, .n = n, .apply = apply};
        const am_eigen_options o = {
            .order = order, .wanted = wanted, .most = 200, .tolerance = 1e-12, .seed = 3};
        found f;
        found_make(&f, &a);
        AM_CHECK_OK(am_eigen_lanczos(&op, &o, &f.result));
        check_found(&a, &f, wanted, expected, size);
        free(f.vector);
        matrix_free(&a);
    }
}

/* 300 values that lie close, and ones whose largest are of both signs. */
static void close_values(void)
{
    enum { N = 300 };
    double d[N];
    for (int k = 0; k < N; k++) {
        d[k] = 1 / (1 + 0.02 * k);
    }
    const double top[] = {1, 1 / 1.02, 1 / 1.04};
    check_spectrum(N, d, AM_EIGEN_LARGEST, 3, top);
    for (int k = 0; k < N; k++) {
        d[k] = k % 2 == 0 ? pow(0.9, k) : -pow(0.9, k);
    }
    const double both[] = {1, -0.9, pow(0.9, 2), -pow(0.9, 3)};
    check_spectrum(N, d, AM_EIGEN_MAGNITUDE, 4, both);
}

/* The first converge long before the last: without reorthogonalisation they would come twice. */
static void apart(void)
{
    enum { N = 400 };
    double d[N];
    for (int k = 0; k < N; k++) {
        d[k] = k < MOST_WANTED ? 1000 * pow(0.4, k) : 1e-3 * cos(k);
    }
    check_spectrum(N, d, AM_EIGEN_LARGEST, MOST_WANTED, d);
}

/* Repeated and zero values: each once while the first Krylov space lasts, all when it has ended. */
static void repeated_values(void)
{
    double d[40] = {9, 9, 9, -7, -7, 4, 2};
    const double largest[] = {9, 4, 2}, magnitude[] = {9, -7, 4, 2};
    check_spectrum(40, d, AM_EIGEN_LARGEST, 3, largest);
    check_spectrum(40, d, AM_EIGEN_MAGNITUDE, 4, magnitude);
    const double few[7] = {3, 3, 3, 0, 0, -5, -5}, all[] = {3, 3, 3, 0, 0, -5, -5};
    check_spectrum(7, few, AM_EIGEN_LARGEST, 7, all);
    const double by_size[] = {-5, -5, 3, 3, 3, 0, 0};
    check_spectrum(7, few, AM_EIGEN_MAGNITUDE, 7, by_size);
}

static void small_operators(void)
{
    const double zero[5] = {0}, one[1] = {-2.5};
    check_spectrum(5, zero, AM_EIGEN_LARGEST, 2, zero);
    check_spectrum(5, zero, AM_EIGEN_LARGEST, 5, zero);
    check_spectrum(1, one, AM_EIGEN_MAGNITUDE, 1, one);
}

/* The same seed, the same bits; too few products are no convergence, but an estimate. */
static void outcomes(void)
{
    enum { N = 200 };
    double d[N];
    for (int k = 0; k < N; k++) {
        d[k] = 1 + 0.001 * k;
    }
    matrix a = matrix_make(N, d, true);
    const am_operator op = {.self = &a, .n = N, .apply = apply};
    am_eigen_options o = {.wanted = 2, .most = 12, .tolerance = 1e-12, .seed = 3};
    found f, g;
    found_make(&f, &a);
    found_make(&g, &a);
    AM_CHECK_OK(am_eigen_lanczos(&op, &o, &f.result));
    o.memory = malloc((size_t)am_eigen_bytes(N, &o));
    memset(o.memory, 0xff, (size_t)am_eigen_bytes(N, &o)); /* NaN: nothing is read before */
    AM_CHECK_OK(am_eigen_lanczos(&op, &o, &g.result));
    free(o.memory);
    o.memory = NULL;
    AM_CHECK(!f.result.is_converged && f.result.products == 12);
    AM_CHECK_SAME_F64(f.value[0], g.value[0]);
    AM_CHECK(memcmp(f.vector, g.vector, 2 * N * sizeof(double)) == 0);
    AM_CHECK(f.residual[0] > 1e-12);
    for (int i = 0; i < 2; i++) { /* some eigenvalue is as near as the residual says */
        double nearest = INFINITY;
        for (int k = 0; k < N; k++) {
            nearest = fmin(nearest, fabs(d[k] - f.value[i]));
        }
        AM_CHECK(nearest <= f.residual[i]);
    }
    a.fails = 1;
    a.at = 6;
    AM_CHECK_OK(am_eigen_lanczos(&op, &o, &f.result));
    AM_CHECK(!f.result.is_converged && isnan(f.value[0]) && f.result.products == 7);
    a.at = 6;
    AM_CHECK_OK(am_eigen_power(&op, &o, &f.result));
    AM_CHECK(!f.result.is_converged && isnan(f.value[0]) && f.result.products == 7);
    a.fails = 2;
    a.at = 6;
    AM_CHECK_CODE(am_eigen_lanczos(&op, &o, &f.result), AM_E_IO);
    am_error_clear();
    a.at = 6;
    AM_CHECK_CODE(am_eigen_power(&op, &o, &f.result), AM_E_IO);
    am_error_clear();
    o.most = 1;
    AM_CHECK_CODE(am_eigen_lanczos(&op, &o, &f.result), AM_E_BUG);
    am_error_clear();
    free(f.vector);
    free(g.vector);
    matrix_free(&a);
}

static void power(void)
{
    double d[50] = {-6, 4, 4, 1};
    for (int is_dense = 0; is_dense < 2; is_dense++) {
        matrix a = matrix_make(50, d, is_dense == 1);
        const am_operator op = {.self = &a, .n = 50, .apply = apply};
        am_eigen_options o = {.wanted = 1, .most = 200, .tolerance = 1e-11, .seed = 3};
        found f;
        found_make(&f, &a);
        AM_CHECK_OK(am_eigen_power(&op, &o, &f.result));
        check_found(&a, &f, 1, d, 6);
        AM_CHECK(f.result.products > 20 && f.result.products < 100); /* (4/6)^k */
        a.d[1] = 6; /* 6 and -6: does not converge, and says so */
        AM_CHECK_OK(am_eigen_power(&op, &o, &f.result));
        AM_CHECK(!f.result.is_converged && f.residual[0] > 0.1);
        free(f.vector);
        matrix_free(&a);
    }
}

/* 2 on the diagonal, -1 beside it: 2 - 2 cos(k pi / (n + 1)). */
static void tridiagonal(void)
{
    enum { N = 30 };
    double d[N], e[N], z[N * N], work[2 * N];
    for (int i = 0; i < N; i++) {
        d[i] = 2;
        e[i] = -1;
    }
    AM_CHECK_OK(am_tridiagonal_eigen(N, d, e, z, work));
    for (int k = 0; k < N; k++) {
        AM_CHECK_NEAR(d[k], 2 - 2 * cos((k + 1) * M_PI / (N + 1)), 1e-14);
        for (int i = 0; i < N; i++) { /* row k is the vector of value k */
            const double left = i > 0 ? z[k * N + i - 1] : 0,
                         right = i < N - 1 ? z[k * N + i + 1] : 0;
            AM_CHECK_NEAR(2 * z[k * N + i] - left - right, d[k] * z[k * N + i], 1e-13);
        }
    }
    d[3] = INFINITY;
    AM_CHECK_CODE(am_tridiagonal_eigen(N, d, e, z, work), AM_E_NUMERIC);
    am_error_clear();
}

/* ---- eigenvalues of a small network ---- */

enum { CLASSES = 4, SAMPLES = 70 };

typedef struct small {
    am_net net;
    am_samples samples;
    const double *trunk, *head;
    int64_t n_trunk, n_head;
} small;

static int small_apply(void *self, const double *v, double *out)
{
    const small *s = self;
    return am_train_ops_of(AM_DTYPE_F64)
        ->hvp(&s->net, s->trunk, s->head, CLASSES, &s->samples, 0, SAMPLES, v, v + s->n_trunk, NULL,
              NULL, NULL, out, out + s->n_trunk);
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* The Hessian column by column is symmetric; Lanczos finds its largest eigenvalues, power iteration
 * the one of largest magnitude, as Jacobi rotations do on the matrix. */
static void check_small(const small *s, double *H, double *turned, double *value)
{
    enum { WANTED = 4 };
    const int64_t n = s->n_trunk + s->n_head;
    double top[WANTED], residual[WANTED], size = 0;
    for (int64_t i = 0; i < n; i++) {
        memset(value, 0, (size_t)n * sizeof *value);
        value[i] = 1;
        AM_CHECK_OK(small_apply((void *)s, value, H + i * n));
    }
    for (int64_t i = 0; i < n * n; i++) {
        size = fmax(size, fabs(H[i]));
        AM_CHECK_NEAR(H[i], H[i % n * n + i / n], 1e-15);
    }
    AM_CHECK(size > 0.05);
    AM_CHECK(am_eigen_symmetric(H, turned, (int)n));
    for (int64_t i = 0; i < n; i++) {
        value[i] = H[i * n + i];
    }
    qsort(value, (size_t)n, sizeof *value, descending);
    const am_operator a = {.self = (void *)s, .n = n, .apply = small_apply};
    am_eigen_options o = {.wanted = WANTED, .most = 40, .tolerance = 1e-10, .seed = 1};
    am_eigen_result r = {.value = top, .residual = residual};
    AM_CHECK_OK(am_eigen_lanczos(&a, &o, &r));
    AM_CHECK(r.is_converged);
    for (int i = 0; i < WANTED; i++) {
        AM_CHECK_NEAR(top[i], value[i], 1e-13 + residual[i]);
    }
    o.most = 3000;
    AM_CHECK_OK(am_eigen_power(&a, &o, &r));
    AM_CHECK(r.is_converged);
    AM_CHECK_NEAR(fabs(top[0]), fmax(value[0], -value[n - 1]), 1e-13 + residual[0]);
}

static void network(void)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    const am_preset_list widths = {.n = 2, .value = {4, 3}};
    am_param_layout head_layout;
    small s = {0};
    AM_CHECK_OK(am_preset_make("mlp", "activation=tanh", &widths, &s.net));
    AM_CHECK_OK(am_net_shape(&s.net, 3));
    AM_CHECK_OK(am_net_head_layout(&s.net, CLASSES, AM_DTYPE_F64, &head_layout));
    ref_source source = {.net = &s.net, .tokens = 1, .classes = CLASSES};
    s.samples = ref_source_samples(&source, SAMPLES);
    s.n_trunk = s.net.trunk.n;
    s.n_head = head_layout.n;
    const int64_t n = s.n_trunk + s.n_head;
    double *memory = calloc((size_t)(2 * n * (n + 1)), sizeof *memory);
    double *H = memory + n, *turned = H + n * n, *value = turned + n * n;
    AM_CHECK_OK(ops->init(&s.net.trunk, am_test_seed(), "init", memory));
    AM_CHECK_OK(ops->init(&head_layout, am_test_seed(), "init", memory + s.n_trunk));
    s.trunk = memory;
    s.head = memory + s.n_trunk;
    check_small(&s, H, turned, value);
    free(memory);
    am_param_layout_free(&head_layout);
    am_net_free(&s.net);
}

/* A first vector that is known: what it is near to costs fewer products, and what it has nothing of
 * is found all the same. */
static void near(void)
{
    enum { SIZE = 400 };
    double d[SIZE], vector[SIZE] = {0}, value, residual;
    for (int i = 0; i < SIZE; i++) {
        d[i] = (double)i / SIZE;
    }
    d[7] = 10;
    d[9] = 8;
    matrix a = matrix_make(SIZE, d, true);
    const am_operator op = {.self = &a, .n = SIZE, .apply = apply};
    am_eigen_options options = {.order = AM_EIGEN_MAGNITUDE,
                                .wanted = 1,
                                .most = 80,
                                .tolerance = 1e-5,
                                .seed = 3,
                                .near = vector};
    am_eigen_result result = {.value = &value, .residual = &residual, .vector = vector};
    AM_CHECK_OK(am_eigen_lanczos(&op, &options, &result)); /* zeros: nothing is known */
    AM_CHECK(result.is_converged);
    AM_CHECK_NEAR(value, 10, 1e-8);
    const int cold = result.products;
    AM_CHECK_OK(am_eigen_lanczos(&op, &options, &result));
    AM_CHECK(result.is_converged && result.products < cold);
    AM_CHECK_NEAR(value, 10, 1e-8);
    a.d[9] = 12; /* the vector found has nothing of this one */
    AM_CHECK_OK(am_eigen_lanczos(&op, &options, &result));
    AM_CHECK(result.is_converged);
    AM_CHECK_NEAR(value, 12, 1e-8);
    matrix_free(&a);
}

static const am_test tests[] = {
    AM_TEST(close_values),    AM_TEST(apart),    AM_TEST(repeated_values),
    AM_TEST(small_operators), AM_TEST(outcomes), AM_TEST(power),
    AM_TEST(tridiagonal),     AM_TEST(network),  AM_TEST(near),
};

AM_TEST_MAIN("eigen", tests)
