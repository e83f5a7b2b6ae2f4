/* Every property that a merge method declares, on generated inputs, for every method in the table.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "mpi/rng.h"
#include "solver/merge/method.h"
#include "tests/am_test.h"
#include "tests/merge_once.h"

enum { MAX_N = 300, MAX_MODELS = 6, CASES = 40, MIN_DRAWN = 64 };

/* A method in one of the scopes and semantics that it offers. */
typedef struct subject {
    const am_method *method;
    am_scope scope;
    am_semantics semantics;
} subject;

/* One generated tensor of every input; a merge of it runs through the engine. */
typedef struct sample {
    const am_method *method;
    am_scope scope;
    am_semantics semantics;
    int64_t n;
    int models;
    uint64_t seed;
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
                       .seed = s->seed,
                       .scope = s->scope,
                       .semantics = s->semantics,
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

static void draw(sample *s, const subject *of, int number)
{
    const am_method *method = of->method;
    const am_rng rng = am_rng_make(am_test_seed(), "methods", number, 0, method->name);
    const int most =
        method->max_models > 0 && method->max_models < MAX_MODELS ? method->max_models : MAX_MODELS;
    memset(s, 0, sizeof *s);
    s->method = method;
    s->scope = of->scope;
    s->semantics = of->semantics;
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
            fprintf(stderr, "%s, scope %d, semantics %d: not %s\n", s->method->name, (int)s->scope,
                    (int)s->semantics, property);
            return;
        }
    }
}

static void order_invariant_all(const subject *of, int number)
{
    sample a, b;
    draw(&a, of, number);
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

static void equal_identity_all(const subject *of, int number)
{
    sample s;
    draw(&s, of, number);
    for (int m = 1; m < s.models; m++) {
        memcpy(s.x[m], s.x[0], sizeof s.x[m]);
    }
    run_all(&s);
    check_near(&s, s.out, s.x[0], 1e-13, "the identity on equal models");
}

/* Each half on its own gives the same bits, and an element does not see its neighbours. */
static void elementwise_all(const subject *of, int number)
{
    sample whole, part;
    draw(&whole, of, number);
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
            fprintf(stderr, "%s is not elementwise\n", of->method->name);
            return;
        }
    }
}

/* f(theta_0 + s tau + sigma) - theta_0 = s (f(theta_0 + tau) - theta_0) + (f(theta_0 + sigma) -
 * theta_0); a method without a base is linear in the models themselves. */
static void linear_all(const subject *of, int number)
{
    const double factor = -1.75;
    sample tau, sigma, both;
    double expected[MAX_N];
    draw(&tau, of, number);
    draw(&sigma, of, number + 1000);
    sigma.n = tau.n;
    sigma.models = tau.models;
    memcpy(sigma.param, tau.param, sizeof tau.param);
    memcpy(sigma.model_param, tau.model_param, sizeof tau.model_param);
    memcpy(sigma.base, tau.base, sizeof tau.base);
    if (!of->method->needs_base) {
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

static int find_param(const am_method *method, const char *key)
{
    for (int p = 0; method->params[p].key != NULL; p++) {
        if (strcmp(method->params[p].key, key) == 0) {
            return p;
        }
    }
    return -1;
}

/* One value, of the merge and of all models. */
static void set_param(sample *s, const char *key, double value)
{
    const int p = find_param(s->method, key);
    for (int m = 0; p >= 0 && m < s->models; m++) {
        s->param[p] = value;
        s->model_param[m][p] = value;
    }
}

/* The last model with weight 0 takes no part. */
static void zero_removes_all(const subject *of, int number)
{
    sample with, without;
    const int weight = find_param(of->method, "weight");
    draw(&with, of, number);
    if (with.models == of->method->min_models) {
        return;
    }
    with.model_param[with.models - 1][weight] = 0;
    without = with;
    without.models--;
    run_all(&with);
    run_all(&without);
    check_near(&with, with.out, without.out, 1e-13, "without a model of weight 0");
}

/* ---- what holds for every method, declared or not ---- */

/* Models that did not move, as frozen tensors are: the base, and no 0/0. */
static void unmoved_gives_base_all(const subject *of, int number)
{
    sample s;
    draw(&s, of, number);
    for (int m = 0; m < s.models; m++) {
        memcpy(s.x[m], s.base, sizeof s.x[m]);
    }
    run_all(&s);
    check_near(&s, s.out, s.base, 1e-13, "the base of models that are equal to it");
}

static void lambda_zero_gives_base_all(const subject *of, int number)
{
    sample s;
    draw(&s, of, number);
    set_param(&s, "lambda", 0);
    run_all(&s);
    check_near(&s, s.out, s.base, 0, "the base with lambda 0");
}

/* Methods that drop elements: nothing dropped, they are the method that drops none. */
static void dense_is_plain_all(const subject *of, int number)
{
    static const char *const plain_of[][2] = {{"breadcrumbs", "task_arithmetic"},
                                              {"dare_linear", "task_arithmetic"},
                                              {"della_linear", "task_arithmetic"},
                                              {"breadcrumbs_ties", "ties"},
                                              {"dare_ties", "ties"},
                                              {"della", "ties"}};
    for (size_t k = 0; k < sizeof plain_of / sizeof *plain_of; k++) {
        if (strcmp(plain_of[k][0], of->method->name) != 0) {
            continue;
        }
        sample sparse, plain;
        draw(&sparse, of, number);
        set_param(&sparse, "density", 1);
        set_param(&sparse, "gamma", 0);
        set_param(&sparse, "epsilon", 0);
        plain = sparse;
        plain.method = am_method_find(plain_of[k][1]);
        plain.scope = (plain.method->scopes & of->scope) != 0 ? of->scope : 0;
        plain.semantics = (plain.method->semantics & of->semantics) != 0 ? of->semantics : 0;
        static const char *const shared[] = {"weight", "lambda", "normalize"};
        memset(plain.param, 0, sizeof plain.param);
        memset(plain.model_param, 0, sizeof plain.model_param);
        set_param(&plain, "density", 1);
        for (int i = 0; i < 3; i++) {
            const int from = find_param(of->method, shared[i]);
            const int to = find_param(plain.method, shared[i]);
            plain.param[to] = sparse.param[from];
            for (int m = 0; m < plain.models; m++) {
                plain.model_param[m][to] = sparse.model_param[m][from];
            }
        }
        run_all(&sparse);
        run_all(&plain);
        check_near(&sparse, sparse.out, plain.out, 1e-13, "with density 1 the dense method");
    }
}

/* ---- all methods, in all they offer ---- */

static void for_each_subject_all(void (*check_all)(const subject *of))
{
    for (int k = 0; am_method_table[k] != NULL; k++) {
        const am_method *method = am_method_table[k];
        for (int i = 0; i < 4; i++) {
            const am_scope scope = i % 2 == 0 ? AM_SCOPE_TENSOR : AM_SCOPE_GLOBAL;
            const am_semantics meaning = i / 2 == 0 ? AM_SEMANTICS_PAPER : AM_SEMANTICS_MERGEKIT;
            if ((method->scopes == 0 ? i % 2 == 0 : (method->scopes & scope) != 0) &&
                (method->semantics == 0 ? i / 2 == 0 : (method->semantics & meaning) != 0)) {
                check_all(&(subject){method, scope, meaning});
            }
        }
    }
}

static void check_declared_all(const subject *of)
{
    static const struct {
        unsigned property;
        void (*check_all)(const subject *of, int number);
    } checks[] = {{AM_PROP_ORDER_INVARIANT, order_invariant_all},
                  {AM_PROP_EQUAL_IDENTITY, equal_identity_all},
                  {AM_PROP_ELEMENTWISE, elementwise_all},
                  {AM_PROP_LINEAR, linear_all},
                  {AM_PROP_ZERO_REMOVES, zero_removes_all}};
    unsigned checked = 0;
    for (size_t c = 0; c < sizeof checks / sizeof *checks; c++) {
        checked |= checks[c].property;
        for (int i = 0; (of->method->properties & checks[c].property) && i < CASES; i++) {
            checks[c].check_all(of, i);
        }
    }
    AM_CHECK((of->method->properties & ~checked) == 0); /* all are tested */
}

/* Another seed gives another model if the method says so, and only then. */
static void seed_matters_all(const subject *of, int number)
{
    sample a, b;
    draw(&a, of, number);
    const int density = find_param(of->method, "density");
    for (int m = 0; m < a.models && density >= 0; m++) {
        a.model_param[m][density] = 0.5;
    }
    b = a;
    b.seed = 1;
    run_all(&a);
    run_all(&b);
    const bool differs = memcmp(a.out, b.out, (size_t)a.n * sizeof *a.out) != 0;
    if (!AM_CHECK(a.n < MIN_DRAWN || differs == of->method->drops_at_random)) {
        fprintf(stderr, "%s: wrong about what it draws\n", of->method->name);
    }
}

static void check_common_all(const subject *of)
{
    const bool has_lambda = find_param(of->method, "lambda") >= 0;
    for (int i = 0; i < CASES; i++) {
        if (of->method->needs_base) {
            unmoved_gives_base_all(of, i);
        }
        if (has_lambda) {
            lambda_zero_gives_base_all(of, i);
        }
        dense_is_plain_all(of, i);
        seed_matters_all(of, i);
    }
}

static void declared_properties_hold_all(void)
{
    for_each_subject_all(check_declared_all);
}

static void common_properties_hold_all(void)
{
    for_each_subject_all(check_common_all);
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

static const am_test tests[] = {AM_TEST(declared_properties_hold_all),
                                AM_TEST(common_properties_hold_all), AM_TEST(tables_are_sound)};
AM_TEST_MAIN("methods", tests)
