/* The layer conv2d against plain sums in f64, straight from the pixels and by gathered windows: odd
 * sizes, strides and paddings, gradients that are added, samples that are one image apart.
 * SPDX-License-Identifier: BSD-3-Clause */
#define AM_REAL 32
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "mpi/param.h"
#include "solver/training/real_layer.h"
#include "tests/am_test.h"

extern const am_layer am_layer_conv2d_f32;

/* B, image [H,W,C], out, kernel, stride, padding */
static const int64_t cases[][8] = {
    {2, 5, 6, 3, 7, 3, 1, 1},    {3, 7, 5, 12, 17, 3, 1, 0},  {2, 14, 14, 32, 64, 5, 1, 2},
    {1, 4, 3, 120, 6, 3, 1, 2},  {2, 9, 8, 11, 1, 3, 1, 1},   {1, 1, 1, 40, 16, 1, 1, 0},
    {2, 6, 9, 8, 33, 4, 1, 3},   {2, 8, 8, 12, 5, 3, 2, 1},   {1, 6, 6, 16, 4, 3, 1, 4},
    {2, 28, 28, 1, 32, 5, 1, 2}, {1, 7, 7, 350, 18, 3, 1, 1}, {3, 12, 2, 16, 16, 2, 1, 1},
};
enum { CASES = sizeof cases / sizeof *cases };

typedef struct conv {
    int64_t B, H, W, C, K, k, stride, padding, h, w;
    const float *x, *weight, *bias, *dy;
} conv;

static float *numbers(int64_t n, unsigned seed)
{
    float *out = malloc((size_t)n * sizeof *out);
    if (out == NULL) {
        abort();
    }
    for (int64_t i = 0; i < n; i++) {
        out[i] = (float)(((uint64_t)i + seed) * 2654435761U % 2001) / 1000 - 1;
    }
    return out;
}

/* Index of the pixel and weight under output (row, column) at (i, j) of the window; -1: outside. */
static int64_t pixel(const conv *c, int64_t b, int64_t row, int64_t column, int64_t i, int64_t j)
{
    const int64_t y = row * c->stride + i - c->padding, x = column * c->stride + j - c->padding;
    return y < 0 || y >= c->H || x < 0 || x >= c->W ? -1 : ((b * c->H + y) * c->W + x) * c->C;
}

/* What = 'y', 'x', 'w': the sum for every element, and that of the sizes of its terms. */
static void plain(const conv *c, char what, double *sum, double *size)
{
    for (int64_t p = 0; p < c->B * c->h * c->w; p++) {
        const int64_t b = p / (c->h * c->w), row = p / c->w % c->h, column = p % c->w;
        for (int64_t q = 0; q < c->K * c->k * c->k; q++) {
            const int64_t n = q / (c->k * c->k), i = q / c->k % c->k, j = q % c->k;
            const int64_t at = pixel(c, b, row, column, i, j);
            for (int64_t t = 0; at >= 0 && t < c->C; t++) {
                const int64_t in_w = ((n * c->C + t) * c->k + i) * c->k + j;
                const double x = (double)c->x[at + t], w = (double)c->weight[in_w];
                const double dy = (double)c->dy[p * c->K + n];
                const double term = what == 'y' ? x * w : what == 'x' ? dy * w : dy * x;
                const int64_t to = what == 'y' ? p * c->K + n : what == 'x' ? at + t : in_w;
                sum[to] += term;
                size[to] += fabs(term);
            }
        }
    }
}

static void compare(const conv *c, char what, const float *got, const float *before, int64_t n)
{
    double *sum = calloc(2 * (size_t)n, sizeof *sum), worst = 0;
    if (sum == NULL) {
        abort();
    }
    plain(c, what, sum, sum + n);
    for (int64_t i = 0; i < n; i++) {
        const double add = what == 'y'      ? (double)c->bias[i % c->K]
                           : before != NULL ? (double)before[i]
                                            : 0;
        worst = fmax(worst, fabs((double)got[i] - sum[i] - add) / (sum[n + i] + fabs(add) + 1e-3));
    }
    if (!(worst < 2e-6)) {
        printf("d%c of [%d,%d,%d,%d] to %d, kernel %d, stride %d, padding %d: %g\n", what,
               (int)c->B, (int)c->H, (int)c->W, (int)c->C, (int)c->K, (int)c->k, (int)c->stride,
               (int)c->padding, worst);
    }
    AM_CHECK(worst < 2e-6);
    free(sum);
}

static void one(const int64_t *z, bool add)
{
    conv c = {z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7], 0, 0, NULL, NULL, NULL, NULL};
    const am_layer *layer = &am_layer_conv2d_f32;
    _Alignas(16) unsigned char attrs[AM_LAYER_ATTR_BYTES] = {0};
    const char *const key[] = {"out", "kernel", "stride", "padding"};
    AM_CHECK_OK(am_param_defaults(layer->attrs, attrs));
    for (int i = 0; i < 4; i++) {
        char text[24];
        snprintf(text, sizeof text, "%d", (int)z[4 + i]);
        AM_CHECK_OK(am_param_set(layer->attrs, attrs, key[i], text, "conv2d"));
    }
    am_layer_site site = {.name = "c", .attrs = attrs, .in = {{.n = 3, .d = {c.H, c.W, c.C}}}};
    AM_CHECK_OK(layer->shape(&site, &site.out));
    c.h = site.out.d[0];
    c.w = site.out.d[1];
    const int64_t images = c.B * c.H * c.W * c.C, outs = c.B * c.h * c.w * c.K;
    const int64_t weights = c.K * c.C * c.k * c.k;
    float *x = numbers(images, 1), *weight = numbers(weights, 2), *bias = numbers(c.K, 3);
    float *dy = numbers(outs, 4), *y = numbers(outs, 5), *before = numbers(images, 6);
    float *dx = numbers(images, 6), *dweight = numbers(weights, 7), *dbias = numbers(c.K, 8);
    float *scratch = malloc((size_t)layer->scratch(&site, c.B));
    if (scratch == NULL) {
        abort();
    }
    c.x = x, c.weight = weight, c.bias = bias, c.dy = dy;
    const am_layer_args a = {.site = &site,
                             .B = c.B,
                             .x = {x},
                             .y = y,
                             .param = {weight, bias},
                             .scratch = scratch,
                             .dy = dy,
                             .dx = {dx},
                             .add = {add},
                             .dparam = {dweight, dbias}};
    layer->forward(&a);
    layer->backward(&a);
    compare(&c, 'y', y, NULL, outs);
    compare(&c, 'x', dx, add ? before : NULL, images);
    compare(&c, 'w', dweight, NULL, weights);
    float *const owned[] = {x, weight, bias, dy, y, before, dx, dweight, dbias, scratch};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        free(owned[i]);
    }
}

static void sums(void)
{
    for (int i = 0; i < CASES; i++) {
        one(cases[i], false);
        one(cases[i], true);
    }
}

static const am_test tests[] = {AM_TEST(sums)};

AM_TEST_MAIN("conv", tests)
