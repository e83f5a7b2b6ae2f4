/* Gradients of the multilayer perceptron: against central differences in f64, against the naive
 * reference, and f32 against f64. SPDX-License-Identifier: BSD-3-Clause */
#include "tests/am_test.h"
#include "tests/ref_mlp.h"

enum { SAMPLES = 9, CLASSES = 5 };

static const ref_spec specs[] = {
    {.inputs = 7, .n_widths = 1, .widths = {6}, .activation = REF_RELU},
    {.inputs = 7, .n_widths = 1, .widths = {6}, .activation = REF_TANH},
    {.inputs = 5, .n_widths = 3, .widths = {9, 1, 8}, .activation = REF_TANH},
    {.inputs = 13, .n_widths = 2, .widths = {17, 11}, .activation = REF_RELU},
    {.inputs = 3,
     .n_widths = 11, /* names with two digits: order of names is order of layers */
     .widths = {8, 7, 6, 7, 8, 9, 8, 7, 6, 7, 8},
     .activation = REF_TANH},
};
enum { SPECS = sizeof specs / sizeof specs[0] };

typedef struct problem {
    ref_net net;
    ref_data data;
    double *trunk, *head, *d_trunk, *d_head;
} problem;

static double *block(int64_t n)
{
    double *b = calloc((size_t)n, sizeof *b);
    AM_ASSERT(b != NULL);
    return b;
}

/* Samples near a kink of the rectifier are replaced: a difference across it is no derivative. */
static void leave_kinks(problem *p)
{
    ref_sample *s = calloc(1, sizeof *s);
    const am_rng rng = am_rng_make(am_test_seed(), "redraw", 0, 0, "");
    int64_t draws = 0;
    for (int64_t i = 0; i < p->data.n; i++) {
        float *x = p->data.x + i * p->data.C;
        ref_forward(&p->net, p->trunk, p->head, x, p->data.y[i], s);
        while (p->net.spec->activation == REF_RELU && s->nearest_kink < 1e-3 && draws < 1000000) {
            for (int64_t c = 0; c < p->data.C; c++) {
                x[c] = (float)am_rng_normal(&rng, draws++);
            }
            ref_forward(&p->net, p->trunk, p->head, x, p->data.y[i], s);
        }
    }
    free(s);
}

static problem problem_make(const ref_spec *spec)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    problem p = {.net = ref_net_make(spec, CLASSES),
                 .data = ref_data_make(am_test_seed(), 0, SAMPLES, spec->inputs, CLASSES)};
    p.trunk = block(p.net.trunk.n);
    p.head = block(p.net.head.n);
    p.d_trunk = block(p.net.trunk.n);
    p.d_head = block(p.net.head.n);
    AM_CHECK_OK(ops->init(&p.net.trunk, am_test_seed(), "init", p.trunk));
    AM_CHECK_OK(ops->init(&p.net.head, am_test_seed(), "init", p.head));
    const am_rng rng = am_rng_make(am_test_seed(), "bias", 0, 0, "");
    for (int64_t i = 0; i < p.net.trunk.n; i++) { /* biases that are not 0 */
        p.trunk[i] += 0.1 * am_rng_normal(&rng, i);
    }
    for (int64_t i = 0; i < p.net.head.n; i++) {
        p.head[i] += 0.1 * am_rng_normal(&rng, p.net.trunk.n + i);
    }
    leave_kinks(&p);
    return p;
}

static void problem_free(problem *p)
{
    ref_net_free(&p->net);
    ref_data_free(&p->data);
    free(p->trunk);
    free(p->head);
    free(p->d_trunk);
    free(p->d_head);
}

static double loss_at(problem *p)
{
    double loss = NAN;
    const am_samples samples = ref_samples(&p->data);
    AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F64)
                    ->gradient(ref_mlp(p->net.spec), p->trunk, p->head, CLASSES, &samples, 0,
                               SAMPLES, &loss, NULL, NULL));
    return loss;
}

/* Fourth-order central difference: error h^4, so that 1e-7 is far above both errors. */
static double difference(problem *p, double *w)
{
    static const double h = 2e-4;
    const double at = *w;
    double f[4];
    static const double step[4] = {-2, -1, 1, 2};
    for (int i = 0; i < 4; i++) {
        *w = at + step[i] * h;
        f[i] = loss_at(p);
    }
    *w = at;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

/* Every element of every tensor to 1e-7 of the tensor's largest. */
static void check_differences(problem *p, const am_param_layout *layout, double *params,
                              const double *d)
{
    for (int64_t t = 0; t < layout->tensors.n; t++) {
        const int64_t lo = layout->offset[t], n = layout->tensors.t[t].numel;
        double largest = 0;
        for (int64_t i = lo; i < lo + n; i++) {
            largest = fmax(largest, fabs(d[i]));
        }
        AM_CHECK(largest > 0);
        for (int64_t i = lo; i < lo + n; i++) {
            AM_CHECK_NEAR(d[i], difference(p, &params[i]), 1e-7 * largest);
        }
    }
}

static void central_differences(void)
{
    for (int i = 0; i < SPECS; i++) {
        problem p = problem_make(&specs[i]);
        const am_samples samples = ref_samples(&p.data);
        double loss = 0;
        AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F64)
                        ->gradient(ref_mlp(&specs[i]), p.trunk, p.head, CLASSES, &samples, 0,
                                   SAMPLES, &loss, p.d_trunk, p.d_head));
        AM_CHECK_SAME_F64(loss, loss_at(&p));
        check_differences(&p, &p.net.trunk, p.trunk, p.d_trunk);
        check_differences(&p, &p.net.head, p.head, p.d_head);
        problem_free(&p);
    }
}

static double norm(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    return sqrt(sum);
}

/* max |a - b| over a block */
static double apart(const double *a, const double *b, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs(a[i] - b[i]));
    }
    return most;
}

static void naive_reference(void)
{
    for (int i = 0; i < SPECS; i++) {
        problem p = problem_make(&specs[i]);
        const am_samples samples = ref_samples(&p.data);
        double *r_trunk = block(p.net.trunk.n), *r_head = block(p.net.head.n), loss = 0;
        int64_t correct = 0, index[SAMPLES] = {2, 3, 4, 5};
        AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F64)
                        ->gradient(ref_mlp(&specs[i]), p.trunk, p.head, CLASSES, &samples, 2, 6,
                                   &loss, p.d_trunk, p.d_head));
        const double expected =
            ref_mean(&p.net, p.trunk, p.head, &p.data, index, 4, r_trunk, r_head, &correct);
        AM_CHECK_NEAR(loss, expected, 1e-13);
        AM_CHECK(apart(p.d_trunk, r_trunk, p.net.trunk.n) <= 1e-13 * norm(r_trunk, p.net.trunk.n));
        AM_CHECK(apart(p.d_head, r_head, p.net.head.n) <= 1e-13 * norm(r_head, p.net.head.n));
        free(r_trunk);
        free(r_head);
        problem_free(&p);
    }
}

static float *narrow(const double *x, int64_t n)
{
    float *y = calloc((size_t)n, sizeof *y);
    AM_ASSERT(y != NULL);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (float)x[i];
    }
    return y;
}

/* One source, two precisions: f32 is f64 to a few of its own roundings. */
static void single_against_double(void)
{
    for (int i = 0; i < SPECS; i++) {
        problem p = problem_make(&specs[i]);
        const am_samples samples = ref_samples(&p.data);
        const int64_t n = p.net.trunk.n, m = p.net.head.n;
        float *trunk = narrow(p.trunk, n), *head = narrow(p.head, m);
        float *d_trunk = narrow(p.d_trunk, n), *d_head = narrow(p.d_head, m);
        double loss = 0, loss32 = 0;
        AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F64)
                        ->gradient(ref_mlp(&specs[i]), p.trunk, p.head, CLASSES, &samples, 0,
                                   SAMPLES, &loss, p.d_trunk, p.d_head));
        AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                        ->gradient(ref_mlp(&specs[i]), trunk, head, CLASSES, &samples, 0, SAMPLES,
                                   &loss32, d_trunk, d_head));
        AM_CHECK_NEAR(loss32, loss, 1e-5);
        double most = 0;
        for (int64_t j = 0; j < n; j++) {
            most = fmax(most, fabs((double)d_trunk[j] - p.d_trunk[j]));
        }
        for (int64_t j = 0; j < m; j++) {
            most = fmax(most, fabs((double)d_head[j] - p.d_head[j]));
        }
        AM_CHECK(most <= 1e-5 * (norm(p.d_trunk, n) + norm(p.d_head, m)));
        free(trunk);
        free(head);
        free(d_trunk);
        free(d_head);
        problem_free(&p);
    }
}

static const am_test tests[] = {
    AM_TEST(central_differences),
    AM_TEST(naive_reference),
    AM_TEST(single_against_double),
};

AM_TEST_MAIN("mlp_gradient", tests)
