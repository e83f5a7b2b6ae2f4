/* Every property that a merge method declares, on generated inputs, for every method in the table.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "mpi/rng.h"
#include "solver/merge/method.h"
#include "tests/am_test.h"
#include "tests/merge_once.h"

enum { MAX_N = 300, MAX_MODELS = 6, CASES = 40 };

/* One generated tensor of every input; a merge of it runs through the engine. */
typedef struct sample {
    const am_method *method;
    int64_t n;
    int models;
    double base[MAX_N], x[MAX_MODELS][MAX_N], aux[MAX_MODELS][MAX_N], out[MAX_N];
    double param[AM_METHOD_MAX_PARAMS], model_param[MAX_MODELS][AM_METHOD_MAX_PARAMS];
} sample;

static void run_all(sample *s)
{
    const int64_t matrix[] = {s->n / 4, 4}, vector[] = {s->n};
    const bool is_matrix = s->n % 4 == 0;
    am_tensor_table table = {0};
    am_merge_once m = {.method = s->method,
                       .tensors = &table,
                       .models = s->models,
                       .base = s->method->needs_base ? s->base : NULL};
    AM_CHECK_OK(am_tensor_table_add(&table, "tensor", AM_DTYPE_F64, is_matrix ? 2 : 1,
                                    is_matrix ? matrix : vector));
    AM_CHECK_OK(am_tensor_table_finish(&table));
    memcpy(m.param, s->param, sizeof m.param);
    for (int t = 0; t < s->models; t++) {
        m.x[t] = s->x[t];
        m.aux[t] = s->method->needs_aux ? s->aux[t] : NULL;
        memcpy(m.model_param[t], s->model_param[t], sizeof m.model_param[t]);
    }
    AM_CHECK_OK(am_merge_once_all(MPI_COMM_SELF, &m, s->out));
    am_tensor_table_free(&table);
}

/* Parameters inside their ranges: required ones are drawn, those of models sum to one; others have
 * their default. */
static void draw_parameters(sample *s, const am_rng *rng)
{
    for (int p = 0; s->method->params[p].key != NULL; p++) {
        const am_method_param *param = &s->method->params[p];
        double left = 1;
        s->param[p] = param->required ? am_rng_uniform(rng, 8000 + p) : param->fallback;
        for (int m = 0; m < s->models; m++) {
            const bool is_last = m == s->models - 1;
            const double value = is_last ? left : am_rng_uniform(rng, 9000 + 10 * p + m) / 3;
            s->model_param[m][p] = param->required ? value : param->fallback;
            left -= value;
        }
    }
}

static void draw(sample *s, const am_method *method, int number)
{
    const am_rng rng = am_rng_make(am_test_seed(), "methods", number, 0, method->name);
    const int most =
        method->max_models > 0 && method->max_models < MAX_MODELS ? method->max_models : MAX_MODELS;
    memset(s, 0, sizeof *s);
    s->method = method;
    s->n = 1 + (int64_t)(am_rng_uniform(&rng, 1) * (MAX_N - 1));
    s->models =
        method->min_models + (int)(am_rng_uniform(&rng, 2) * (most - method->min_models + 1));
    for (int64_t i = 0; i < s->n; i++) {
        s->base[i] = am_rng_normal(&rng, 10000 + i);
        for (int m = 0; m < s->models; m++) {
            s->x[m][i] = am_rng_normal(&rng, (m + 2) * 100000 + i);
            s->aux[m][i] = am_rng_uniform(&rng, (m + 2) * 100000 + 50000 + i);
        }
    }
    draw_parameters(s, &rng);
}

static void check_near(const sample *s, const double *got, const double *expected, double tolerance,
                       const char *property)
{
    for (int64_t i = 0; i < s->n; i++) {
        if (!AM_CHECK_NEAR(got[i], expected[i], tolerance * (1 + fabs(expected[i])))) {
            fprintf(stderr, "%s is not %s\n", s->method->name, property);
            return;
        }
    }
}

static void order_invariant_all(const am_method *method, int number)
{
    sample a, b;
    draw(&a, method, number);
    b = a;
    for (int m = 0; m < a.models; m++) { /* reversed */
        memcpy(b.x[m], a.x[a.models - 1 - m], sizeof b.x[m]);
        memcpy(b.aux[m], a.aux[a.models - 1 - m], sizeof b.aux[m]);
        memcpy(b.model_param[m], a.model_param[a.models - 1 - m], sizeof b.model_param[m]);
    }
    run_all(&a);
    run_all(&b);
    check_near(&a, b.out, a.out, 1e-13, "order invariant");
}

static void equal_identity_all(const am_method *method, int number)
{
    sample s;
    draw(&s, method, number);
    for (int m = 1; m < s.models; m++) {
        memcpy(s.x[m], s.x[0], sizeof s.x[m]);
    }
    run_all(&s);
    check_near(&s, s.out, s.x[0], 1e-13, "the identity on equal models");
}

/* Each half on its own gives the same bits, and an element does not see its neighbours. */
static void elementwise_all(const am_method *method, int number)
{
    sample whole, part;
    draw(&whole, method, number);
    run_all(&whole);
    part = whole;
    const int64_t at = whole.n / 2;
    part.n = whole.n - at;
    memmove(part.base, whole.base + at, (size_t)part.n * sizeof(double));
    for (int m = 0; m < part.models; m++) {
        memmove(part.x[m], whole.x[m] + at, (size_t)part.n * sizeof(double));
        memmove(part.aux[m], whole.aux[m] + at, (size_t)part.n * sizeof(double));
        part.x[m][part.n - 1] += 1;
    }
    run_all(&part);
    for (int64_t i = 0; i + 1 < part.n; i++) {
        if (!AM_CHECK_SAME_F64(part.out[i], whole.out[at + i])) {
            fprintf(stderr, "%s is not elementwise\n", method->name);
            return;
        }
    }
}

/* f(theta_0 + s tau + sigma) - theta_0 = s (f(theta_0 + tau) - theta_0) + (f(theta_0 + sigma) -
 * theta_0); a method without a base is linear in the models themselves. */
static void linear_all(const am_method *method, int number)
{
    const double factor = -1.75;
    sample tau, sigma, both;
    double expected[MAX_N];
    draw(&tau, method, number);
    draw(&sigma, method, number + 1000);
    sigma.n = tau.n;
    sigma.models = tau.models;
    memcpy(sigma.param, tau.param, sizeof tau.param);
    memcpy(sigma.model_param, tau.model_param, sizeof tau.model_param);
    memcpy(sigma.base, tau.base, sizeof tau.base);
    if (!method->needs_base) {
        memset(tau.base, 0, sizeof tau.base);
        memset(sigma.base, 0, sizeof sigma.base);
    }
    both = tau;
    for (int m = 0; m < tau.models; m++) {
        for (int64_t i = 0; i < tau.n; i++) {
            both.x[m][i] =
                tau.base[i] + factor * (tau.x[m][i] - tau.base[i]) + (sigma.x[m][i] - tau.base[i]);
        }
    }
    run_all(&tau);
    run_all(&sigma);
    run_all(&both);
    for (int64_t i = 0; i < tau.n; i++) {
        expected[i] =
            tau.base[i] + factor * (tau.out[i] - tau.base[i]) + (sigma.out[i] - tau.base[i]);
    }
    check_near(&both, both.out, expected, 1e-12, "linear");
}

static void declared_properties_hold_all(void)
{
    static const struct {
        unsigned property;
        void (*check)(const am_method *method, int number);
    } checks[] = {{AM_PROP_ORDER_INVARIANT, order_invariant_all},
                  {AM_PROP_EQUAL_IDENTITY, equal_identity_all},
                  {AM_PROP_ELEMENTWISE, elementwise_all},
                  {AM_PROP_LINEAR, linear_all}};
    for (int k = 0; am_method_table[k] != NULL; k++) {
        unsigned checked = 0;
        for (int c = 0; c < 4; c++) {
            checked |= checks[c].property;
            for (int i = 0; (am_method_table[k]->properties & checks[c].property) && i < CASES;
                 i++) {
                checks[c].check(am_method_table[k], i);
            }
        }
        AM_CHECK((am_method_table[k]->properties & ~checked) == 0); /* all are tested */
    }
}

/* What the tables themselves promise. */
static void tables_are_sound(void)
{
    for (int k = 0; am_method_table[k] != NULL; k++) {
        const am_method *method = am_method_table[k];
        int n = 0;
        AM_CHECK(am_method_find(method->name) == method);
        AM_CHECK(method->summary != NULL && method->source != NULL && method->combine != NULL);
        AM_CHECK(method->min_models >= 1 && method->max_models >= 0);
        for (const am_method_param *p = method->params; p->key != NULL; p++, n++) {
            const bool is_bounded = p->low != 0 || p->high != 0;
            AM_CHECK(p->help != NULL && p->low <= p->high);
            AM_CHECK(p->required || !is_bounded ||
                     (p->fallback >= p->low && p->fallback <= p->high));
        }
        AM_CHECK(n <= AM_METHOD_MAX_PARAMS);
    }
    AM_CHECK(am_method_find("no such method") == NULL);
}

static const am_test tests[] = {AM_TEST(declared_properties_hold_all), AM_TEST(tables_are_sound)};
AM_TEST_MAIN("methods", tests)
