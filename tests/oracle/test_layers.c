/* Gradients of every layer and preset against central differences in f64; the same for the
 * linearised network, whose loss is differenced along the trunk: that holds only if forward mode
 * and backward are transposes of each other and right. SPDX-License-Identifier: BSD-3-Clause */
#define AM_REAL 64
#include "tests/ref_layers.h"

/* Mean loss; its gradient too if asked. */
static double loss_of(problem *p, bool with_gradient)
{
    const am_samples samples = problem_samples(p, B);
    double sum = 0;
    for (int64_t b = 0; b < B; b++) {
        p->pass.index[b] = b;
    }
    AM_CHECK_OK(am_pass_load_f64(&p->pass, &samples, B, CLASSES));
    am_pass_forward_f64(&p->pass, p->trunk, p->head, B, CLASSES);
    for (int64_t b = 0; b < B; b++) {
        sum += p->pass.loss[b] / B;
    }
    if (with_gradient) {
        am_pass_backward_f64(&p->pass, p->trunk, p->head, B, CLASSES, 1.0 / B, p->d_trunk,
                             p->d_head);
    }
    return sum;
}

/* Fourth-order central difference. */
static double difference(problem *p, double *w)
{
    static const double h = 3e-4, step[4] = {-2, -1, 1, 2};
    const double at = *w;
    double f[4];
    for (int i = 0; i < 4; i++) {
        *w = at + step[i] * h;
        f[i] = loss_of(p, false);
    }
    *w = at;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

/* Every element of every trained tensor (at most 40 of a tensor) to 1e-7 of the largest of the
 * network. */
static void check_block(problem *p, const am_param_layout *layout, double *w, const double *d,
                        const char *what)
{
    am_param_layout part;
    double largest = 1e-3;
    AM_CHECK_OK(am_param_layout_part(layout, &part));
    layout = &part;
    for (int64_t i = 0; i < layout->n; i++) {
        largest = fmax(largest, fabs(d[i]));
    }
    for (int64_t k = 0; k < layout->tensors.n; k++) {
        const int64_t n = layout->tensors.t[k].numel, stride = n / 40 + 1;
        double worst = 0;
        for (int64_t i = 0; layout->rate[k] == 0 && i < n; i += stride) {
            const double made = d[layout->offset[k] + i];
            worst = fmax(worst, fabs(made - difference(p, &w[layout->home[k] + i])));
        }
        if (!AM_CHECK(worst <= 1e-7 * largest)) {
            fprintf(stderr, "%s: %s: %g of %g\n", what, layout->tensors.t[k].name, worst, largest);
        }
    }
    am_param_layout_free(&part);
}

static void check_all(bool is_training, bool recompute)
{
    for (int i = 0; i < CASES; i++) {
        problem p;
        problem_make(&p, &cases[i], is_training);
        p.net.recompute = recompute;
        problem_open(&p);
        const double loss = loss_of(&p, true);
        AM_CHECK_SAME_F64(loss_of(&p, false), loss);
        check_block(&p, &p.net.trunk, p.trunk, p.d_trunk, cases[i].what);
        check_block(&p, &p.head_layout, p.head, p.d_head, cases[i].what);
        problem_free(&p);
    }
}

static void differences(void)
{
    check_all(false, false);
}

static void differences_in_training(void)
{
    check_all(true, false);
}

/* Segments that are computed again give the same bits, in less memory for a deep network. */
static void recomputed(void)
{
    for (int i = 0; i < CASES; i++) {
        problem p;
        problem_make(&p, &cases[i], true);
        problem_open(&p);
        const double loss = loss_of(&p, true);
        double *d = block(p.net.trunk.n);
        memcpy(d, p.d_trunk, (size_t)p.net.trunk.n * sizeof *d);
        am_pass_free_f64(&p.pass);
        p.net.recompute = true;
        problem_open(&p);
        AM_CHECK_SAME_F64(loss_of(&p, true), loss);
        AM_CHECK(memcmp(d, p.d_trunk, (size_t)p.net.trunk.n * sizeof *d) == 0);
        free(d);
        problem_free(&p);
    }
    am_net net;
    int64_t whole = 0, less = 0;
    AM_CHECK_OK(am_preset_make("gpt", "depth=8 features=32", NULL, &net));
    AM_CHECK_OK(am_net_shape(&net, 64));
    AM_CHECK_OK(am_pass_bytes_f64(&net, 4, 4, true, &whole));
    net.recompute = true;
    AM_CHECK_OK(am_pass_bytes_f64(&net, 4, 4, true, &less));
    AM_CHECK(less * 5 < whole * 2);
    am_net_free(&net);
}

/* The linearised network: d/dw of L(f(a) + J (w - a)) is J^T dL. At the anchor it is the network.
 */
static void linearised(void)
{
    for (int i = 0; i < CASES; i++) {
        problem p;
        problem_make(&p, &cases[i], cases[i].preset == NULL);
        problem_open(&p);
        const double loss = loss_of(&p, false);
        am_pass_free_f64(&p.pass);
        double *anchor = block(p.net.trunk.n);
        memcpy(anchor, p.trunk, (size_t)p.net.trunk.n * sizeof *anchor);
        p.net.anchor = anchor;
        problem_open(&p);
        AM_CHECK_NEAR(loss_of(&p, false), loss, 1e-13);
        perturb(p.net.trunk.n, 0.2, "away", p.trunk);
        loss_of(&p, true);
        check_block(&p, &p.net.trunk, p.trunk, p.d_trunk, cases[i].what);
        check_block(&p, &p.head_layout, p.head, p.d_head, cases[i].what);
        problem_free(&p);
        free(anchor);
    }
}

static const am_test tests[] = {
    AM_TEST(differences),
    AM_TEST(differences_in_training),
    AM_TEST(recomputed),
    AM_TEST(linearised),
};

AM_TEST_MAIN("layers", tests)
