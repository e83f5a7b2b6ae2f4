/* Products with the Hessian in f64: of every layer and preset against differences of the exact
 * gradient, symmetric and linear to rounding; of a head against the closed form of multinomial
 * logistic regression; am_train_ops.hvp over pieces of samples.
 * SPDX-License-Identifier: BSD-3-Clause */
#define AM_REAL 64
#include "mpi/error.h"
#include "solver/training/train.h"
#include "tests/ref_layers.h"

/* The trained reals of a problem in one vector: those of a gradient of the trunk, then the head. */
typedef struct vectors {
    int64_t n_trunk, n_head, n;
} vectors;

static vectors vectors_of(const problem *p)
{
    const int64_t n_trunk = p->net.gradient_n, n_head = p->head_layout.n;
    return (vectors){n_trunk, n_head, n_trunk + n_head};
}

/* A random direction, of the whole trunk and the head: numbers at frozen tensors too, which must
 * not matter. */
typedef struct direction {
    double *trunk, *head;
} direction;

static void direction_free(direction *d)
{
    free(d->trunk);
    free(d->head);
}

/* Of length about 1 in the tensors that are trained. */
static direction direction_of(const problem *p, const char *what)
{
    direction d = {block(p->net.trunk.n), block(p->head_layout.n)};
    const double by = 1 / sqrt((double)vectors_of(p).n);
    char name[NAME];
    snprintf(name, sizeof name, "%s head", what);
    perturb(p->net.trunk.n, by, what, d.trunk);
    perturb(p->head_layout.n, by, name, d.head);
    return d;
}

/* The direction as a vector like the gradient, zero for statistics. */
static void direction_flatten(const problem *p, const direction *d, double *out)
{
    const am_param_layout *layout = &p->net.trunk;
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        const int64_t n = layout->tensors.t[k].numel;
        if (!layout->is_frozen[k]) {
            memset(out, 0, (size_t)n * sizeof *out);
            if (layout->rate[k] == 0) {
                memcpy(out, d->trunk + layout->offset[k], (size_t)n * sizeof *out);
            }
            out += n;
        }
    }
    memcpy(out, d->head, (size_t)p->head_layout.n * sizeof *out);
}

static void load(problem *p)
{
    const am_samples samples = problem_samples(p, B);
    for (int64_t b = 0; b < B; b++) {
        p->pass.index[b] = b;
    }
    AM_CHECK_OK(am_pass_load_f64(&p->pass, &samples, B, CLASSES));
}

/* Gradient as one vector, by the ordinary pass. */
static void gradient(problem *p, double *out)
{
    load(p);
    am_pass_forward_f64(&p->pass, p->trunk, p->head, B, CLASSES);
    am_pass_backward_f64(&p->pass, p->trunk, p->head, B, CLASSES, 1.0 / B, out,
                         out + vectors_of(p).n_trunk);
}

/* H d as one vector, by a pass with tangents; the gradient too. */
static void product(problem *p, const direction *d, double *g, double *out)
{
    const int64_t at = vectors_of(p).n_trunk;
    load(p);
    am_pass_aim_f64(&p->pass, d->trunk, d->head, CLASSES);
    am_pass_forward_f64(&p->pass, p->trunk, p->head, B, CLASSES);
    am_pass_curve_f64(&p->pass, p->trunk, p->head, B, CLASSES, 1.0 / B, g, g + at, out, out + at);
}

static void open_curved(problem *p)
{
    am_pass_free_f64(&p->pass);
    AM_CHECK_OK(am_pass_make_curved_f64(&p->net, B, CLASSES, &p->pass));
    p->pass.is_training = p->is_training;
    p->pass.draw = (am_pass_draw){.seed = 1, .purpose = "test", .round = 2, .step = 3};
}

/* Trunk and head := those of `from`, moved by h along the direction, but not what is not trained.
 */
static void move(problem *p, const double *trunk, const double *head, const direction *d, double h)
{
    const am_param_layout *layout = &p->net.trunk;
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        for (int64_t i = 0; i < layout->tensors.t[k].numel; i++) {
            const int64_t at = layout->offset[k] + i;
            p->trunk[at] = trunk[at] + (am_param_is_trained(layout, k) ? h * d->trunk[at] : 0);
        }
    }
    for (int64_t i = 0; i < p->head_layout.n; i++) {
        p->head[i] = head[i] + h * d->head[i];
    }
}

/* Fourth-order central difference of the gradient along d. */
static void difference(problem *p, const direction *d, double h, double *out)
{
    static const double step[4] = {-2, -1, 1, 2}, weight[4] = {1, -8, 8, -1};
    const int64_t n = vectors_of(p).n;
    double *trunk = block(p->net.trunk.n), *head = block(p->head_layout.n), *g = block(n);
    memcpy(trunk, p->trunk, (size_t)p->net.trunk.n * sizeof *trunk);
    memcpy(head, p->head, (size_t)p->head_layout.n * sizeof *head);
    memset(out, 0, (size_t)n * sizeof *out);
    for (int s = 0; s < 4; s++) {
        move(p, trunk, head, d, step[s] * h);
        gradient(p, g);
        for (int64_t i = 0; i < n; i++) {
            out[i] += weight[s] * g[i] / (12 * h);
        }
    }
    move(p, trunk, head, d, 0);
    free(trunk);
    free(head);
    free(g);
}

static double largest_of(int64_t n, const double *x)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(x[i]));
    }
    return largest;
}

static double dot(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* Largest difference outside of statistics; in these, the product must be 0. */
static double distance(const problem *p, const double *made, const double *expected)
{
    const am_param_layout *layout = &p->net.trunk;
    double worst = 0;
    int64_t at = 0;
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        for (int64_t i = 0; !layout->is_frozen[k] && i < layout->tensors.t[k].numel; i++, at++) {
            const double other = layout->rate[k] != 0 ? 0 : expected[at];
            worst = fmax(worst, fabs(made[at] - other));
        }
    }
    for (; at < vectors_of(p).n; at++) {
        worst = fmax(worst, fabs(made[at] - expected[at]));
    }
    return worst;
}

/* ---- every layer and preset ---- */

static void check_differences(problem *p, const char *what)
{
    static const double h[] = {3e-2, 1e-2, 3e-3, 1e-3};
    const int64_t n = vectors_of(p).n;
    const direction d = direction_of(p, "v");
    double *g = block(n), *made = block(n), *other = block(n), best = INFINITY;
    open_curved(p);
    product(p, &d, g, made);
    am_pass_free_f64(&p->pass);
    problem_open(p);
    gradient(p, other);
    AM_CHECK(memcmp(g, other, (size_t)n * sizeof *g) == 0); /* the same bits as without tangents */
    for (int i = 0; i < 4; i++) {
        difference(p, &d, h[i], other);
        best = fmin(best, distance(p, made, other));
    }
    const double largest = largest_of(n, made);
    if (!AM_CHECK(best <= 1e-8 * largest && largest > 1e-3)) {
        fprintf(stderr, "%s: %g of %g\n", what, best, largest);
    }
    direction_free((direction *)&d);
    free(g);
    free(made);
    free(other);
}

static void differences_of(bool is_training)
{
    for (int i = 0; i < CASES; i++) {
        problem p;
        problem_make(&p, &cases[i], is_training);
        check_differences(&p, cases[i].what);
        problem_free(&p);
    }
}

static void differences(void)
{
    differences_of(false);
}

static void differences_in_training(void)
{
    differences_of(true);
}

/* u . H v = v . H u, H (2 u - 3 v) = 2 H u - 3 H v, H 0 = 0. */
static void check_symmetry(problem *p, const char *what)
{
    const int64_t n = vectors_of(p).n;
    direction u = direction_of(p, "u"), v = direction_of(p, "v"), none = {NULL, NULL};
    double *flat = block(2 * n), *g = block(n), *hu = block(n), *hv = block(n), *h = block(n);
    open_curved(p);
    product(p, &u, g, hu);
    product(p, &v, g, hv);
    direction_flatten(p, &u, flat);
    direction_flatten(p, &v, flat + n);
    const double size = sqrt(dot(n, hu, hu)) + sqrt(dot(n, hv, hv));
    const double gap = dot(n, flat, hv) - dot(n, flat + n, hu);
    if (!AM_CHECK(fabs(gap) <= 1e-13 * size)) {
        fprintf(stderr, "%s: not symmetric: %g of %g\n", what, gap, size);
    }
    for (int64_t i = 0; i < p->net.trunk.n; i++) {
        u.trunk[i] = 2 * u.trunk[i] - 3 * v.trunk[i];
    }
    for (int64_t i = 0; i < p->head_layout.n; i++) {
        u.head[i] = 2 * u.head[i] - 3 * v.head[i];
    }
    product(p, &u, g, h);
    for (int64_t i = 0; i < n; i++) {
        hu[i] = 2 * hu[i] - 3 * hv[i] - h[i];
    }
    if (!AM_CHECK(largest_of(n, hu) <= 1e-13 * size)) {
        fprintf(stderr, "%s: not linear: %g of %g\n", what, largest_of(n, hu), size);
    }
    product(p, &none, g, h);
    AM_CHECK(largest_of(n, h) == 0);
    direction_free(&u);
    direction_free(&v);
    free(flat);
    free(g);
    free(hu);
    free(hv);
    free(h);
}

static void symmetry(void)
{
    for (int i = 0; i < 2 * CASES; i++) {
        problem p;
        problem_make(&p, &cases[i / 2], i % 2 == 1);
        check_symmetry(&p, cases[i / 2].what);
        problem_free(&p);
    }
}

/* Activation checkpointing makes tangents again: the same bits, in less memory for a deep network.
 */
static void recomputed(void)
{
    for (int i = 0; i < CASES; i++) {
        problem p;
        problem_make(&p, &cases[i], true);
        const int64_t n = vectors_of(&p).n;
        direction d = direction_of(&p, "v");
        double *g = block(2 * n), *h = block(2 * n);
        open_curved(&p);
        product(&p, &d, g, h);
        p.net.recompute = true;
        open_curved(&p);
        product(&p, &d, g + n, h + n);
        AM_CHECK(memcmp(g, g + n, (size_t)n * sizeof *g) == 0);
        AM_CHECK(memcmp(h, h + n, (size_t)n * sizeof *h) == 0);
        direction_free(&d);
        free(g);
        free(h);
        problem_free(&p);
    }
    am_net net;
    am_net_pass whole, less;
    AM_CHECK_OK(am_preset_make("gpt", "depth=8 features=32", NULL, &net));
    AM_CHECK_OK(am_net_shape(&net, 64));
    AM_CHECK_OK(am_pass_make_curved_f64(&net, 4, 4, &whole));
    net.recompute = true;
    AM_CHECK_OK(am_pass_make_curved_f64(&net, 4, 4, &less));
    AM_CHECK(less.program.bytes * 5 < whole.program.bytes * 2);
    am_pass_free_f64(&whole);
    am_pass_free_f64(&less);
    am_net_free(&net);
}

/* ---- am_train_ops.hvp ---- */

static const layers_case *case_of(const char *what)
{
    for (int i = 0; i < CASES; i++) {
        if (strcmp(cases[i].what, what) == 0) {
            return &cases[i];
        }
    }
    AM_CHECK(false);
    return &cases[0];
}

enum { MANY = 150 }; /* samples: more than two pieces of 64 */

/* Over several pieces: the same as the mean over single samples; the gradient is that of
 * `gradient`; every output may be left out. */
static void pieces(void)
{
    static const char *const what[] = {"mlp", "cnn", "vit", "gpt", "llama"};
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    for (int c = 0; c < 5; c++) {
        problem p;
        problem_make(&p, case_of(what[c]), false);
        const am_samples samples = problem_samples(&p, MANY);
        const int64_t T = p.net.trunk.n, H = p.head_layout.n;
        direction d = direction_of(&p, "v");
        double *all = block(2 * (T + H)), *one = block(2 * (T + H)), *sum = block(2 * (T + H));
        double loss = 0, part = 0, mean = 0;
        AM_CHECK_OK(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 0, MANY, d.trunk, d.head,
                             &loss, all, all + T, all + T + H, all + 2 * T + H));
        for (int64_t i = 0; i < MANY; i++) {
            AM_CHECK_OK(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, i, i + 1, d.trunk,
                                 d.head, &part, one, one + T, one + T + H, one + 2 * T + H));
            mean += part / MANY;
            for (int64_t k = 0; k < 2 * (T + H); k++) {
                sum[k] += one[k] / MANY;
            }
        }
        AM_CHECK_NEAR(loss, mean, 1e-13);
        for (int64_t k = 0; k < 2 * (T + H); k++) {
            sum[k] -= all[k];
        }
        AM_CHECK(largest_of(2 * (T + H), sum) <= 1e-13);
        AM_CHECK_OK(
            ops->gradient(&p.net, p.trunk, p.head, CLASSES, &samples, 3, 67, &part, one, one + T));
        AM_CHECK_OK(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 3, 67, d.trunk, NULL,
                             &mean, sum, sum + T, NULL, NULL));
        AM_CHECK_SAME_F64(mean, part);
        AM_CHECK(memcmp(sum, one, (size_t)(T + H) * sizeof *sum) == 0);
        AM_CHECK_OK(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 0, MANY, d.trunk, d.head,
                             NULL, NULL, NULL, one, NULL));
        AM_CHECK(memcmp(one, all + T + H, (size_t)T * sizeof *one) == 0);
        AM_CHECK_OK(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 0, MANY, d.trunk, d.head,
                             NULL, NULL, NULL, NULL, one));
        AM_CHECK(memcmp(one, all + 2 * T + H, (size_t)H * sizeof *one) == 0);
        direction_free(&d);
        free(all);
        free(one);
        free(sum);
        problem_free(&p);
    }
}

/* Zero rows and columns for frozen tensors; what is not one is that of the whole network. */
static void frozen(void)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    problem p;
    problem_make(&p, case_of("vit"), false);
    const am_samples samples = problem_samples(&p, B);
    const int64_t T = p.net.trunk.n;
    const char *const patterns[] = {"*.weight", "blocks.0.*", "patch.*"};
    direction d = direction_of(&p, "v");
    double *whole = block(T), *h = block(T);
    for (int i = 0; i < 3; i++) {
        am_net net;
        AM_CHECK_OK(am_net_copy(&p.net, &net));
        AM_CHECK_OK(am_net_freeze(&net, patterns[i]));
        AM_CHECK_OK(am_net_shape(&net, p.net.features));
        double *cut = block(T);
        int64_t n_frozen = 0;
        memcpy(cut, d.trunk, (size_t)T * sizeof *cut);
        for (int64_t k = 0; k < net.trunk.tensors.n; k++) {
            const size_t bytes = (size_t)net.trunk.tensors.t[k].numel * sizeof *cut;
            n_frozen += net.trunk.is_frozen[k];
            if (net.trunk.is_frozen[k]) {
                memset(cut + net.trunk.offset[k], 0, bytes);
            }
        }
        AM_CHECK(n_frozen > 0 && n_frozen < net.trunk.tensors.n);
        AM_CHECK_OK(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 0, B, cut, d.head, NULL,
                             NULL, NULL, whole, NULL));
        AM_CHECK_OK(ops->hvp(&net, p.trunk, p.head, CLASSES, &samples, 0, B, d.trunk, d.head, NULL,
                             NULL, NULL, h, NULL));
        for (int64_t k = 0; k < net.trunk.tensors.n; k++) {
            for (int64_t j = 0; j < net.trunk.tensors.t[k].numel; j++) {
                const int64_t at = net.trunk.offset[k] + j;
                AM_CHECK_NEAR(h[at], net.trunk.is_frozen[k] ? 0 : whole[at], 1e-14);
                AM_CHECK(!net.trunk.is_frozen[k] || h[at] == 0);
            }
        }
        am_net_free(&net);
        free(cut);
    }
    direction_free(&d);
    free(whole);
    free(h);
    problem_free(&p);
}

/* Head alone, trunk y = x W^T frozen: H V = mean over samples of (diag(p) - p p^T) (V y + v) with
 * y, and 1 for the bias. Smoothing does not matter. */
static void logistic_regression(void)
{
    enum { F = 5, N = 9 };
    static const layers_case line = {"logistic", F, NULL, {"a linear out=5 bias=no"}};
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    problem p;
    problem_make(&p, &line, false);
    const am_samples samples = problem_samples(&p, N);
    direction d = direction_of(&p, "v");
    double expected[CLASSES + CLASSES * F] = {0}, h[CLASSES + CLASSES * F], h_trunk[F * F];
    for (int64_t i = 0; i < N; i++) {
        float x[F];
        int32_t label;
        double y[F] = {0}, z[CLASSES], z_dot[CLASSES], sum = 0, mean = 0;
        AM_CHECK_OK(gather(&p.self, &i, 1, x, &label));
        for (int f = 0; f < F; f++) {
            for (int j = 0; j < F; j++) {
                y[f] += p.trunk[f * F + j] * (double)x[j];
            }
        }
        for (int k = 0; k < CLASSES; k++) {
            z[k] = p.head[k];
            z_dot[k] = d.head[k];
            for (int f = 0; f < F; f++) {
                z[k] += p.head[CLASSES + k * F + f] * y[f];
                z_dot[k] += d.head[CLASSES + k * F + f] * y[f];
            }
            z[k] = exp(z[k]);
            sum += z[k];
        }
        for (int k = 0; k < CLASSES; k++) {
            z[k] /= sum;
            mean += z[k] * z_dot[k];
        }
        for (int k = 0; k < CLASSES; k++) {
            const double w = z[k] * (z_dot[k] - mean) / N;
            expected[k] += w;
            for (int f = 0; f < F; f++) {
                expected[CLASSES + k * F + f] += w * y[f];
            }
        }
    }
    AM_CHECK_OK(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 0, N, NULL, d.head, NULL, NULL,
                         NULL, h_trunk, h));
    for (int i = 0; i < CLASSES + CLASSES * F; i++) {
        AM_CHECK_NEAR(h[i], expected[i], 1e-15);
    }
    direction_free(&d);
    problem_free(&p);
}

/* f32 is the same source: near f64 for every preset. */
static void narrow(void)
{
    static const char *const what[] = {"mlp", "cnn", "vit", "gpt", "llama"};
    for (int c = 0; c < 5; c++) {
        problem p;
        problem_make(&p, case_of(what[c]), false);
        const am_samples samples = problem_samples(&p, B);
        const int64_t T = p.net.trunk.n, H = p.head_layout.n;
        direction d = direction_of(&p, "v");
        const double *from[4] = {p.trunk, p.head, d.trunk, d.head};
        float *block32 = calloc((size_t)(3 * (T + H)), sizeof *block32), *at[6];
        double *h = block(T + H);
        for (int i = 0; i < 6; i++) {
            at[i] = i == 0 ? block32 : at[i - 1] + (i % 2 == 1 ? T : H);
            for (int64_t k = 0; i < 4 && k < (i % 2 == 0 ? T : H); k++) {
                at[i][k] = (float)from[i][k];
            }
        }
        AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F32)
                        ->hvp(&p.net, at[0], at[1], CLASSES, &samples, 0, B, at[2], at[3], NULL,
                              NULL, NULL, at[4], at[5]));
        AM_CHECK_OK(am_train_ops_of(AM_DTYPE_F64)
                        ->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 0, B, d.trunk, d.head,
                              NULL, NULL, NULL, h, h + T));
        const double largest = largest_of(T + H, h);
        for (int64_t k = 0; k < T + H; k++) {
            AM_CHECK_NEAR((double)at[4][k], h[k], 2e-5 * largest);
        }
        direction_free(&d);
        free(block32);
        free(h);
        problem_free(&p);
    }
}

static void bad_calls(void)
{
    const am_train_ops *ops = am_train_ops_of(AM_DTYPE_F64);
    problem p;
    problem_make(&p, case_of("mlp"), false);
    const am_samples samples = problem_samples(&p, B);
    double *h = block(p.net.trunk.n);
    AM_CHECK_CODE(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 2, 2, NULL, NULL, NULL, NULL,
                           NULL, h, NULL),
                  AM_E_BUG);
    am_error_clear();
    p.net.anchor = p.trunk;
    AM_CHECK_CODE(ops->hvp(&p.net, p.trunk, p.head, CLASSES, &samples, 0, B, NULL, NULL, NULL, NULL,
                           NULL, h, NULL),
                  AM_E_RECIPE);
    AM_CHECK_CONTAINS(am_error_message(), "linearised");
    am_error_clear();
    for (int i = 0; am_layer_at(i) != NULL; i++) { /* none is left without */
        const am_layer *layer = am_layer_at(i);
        AM_CHECK(layer->curve != NULL || layer->is_view || layer->is_sum);
    }
    free(h);
    problem_free(&p);
}

static const am_test tests[] = {
    AM_TEST(differences), AM_TEST(differences_in_training),
    AM_TEST(symmetry),    AM_TEST(recomputed),
    AM_TEST(pieces),      AM_TEST(frozen),
    AM_TEST(narrow),      AM_TEST(logistic_regression),
    AM_TEST(bad_calls),
};

AM_TEST_MAIN("hessian", tests)
