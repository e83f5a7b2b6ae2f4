/* Largest or mean value of windows of an image, per channel, without padding.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include <string.h>
#include "solver/training/real_layer.h"

typedef struct am_pool2d {
    int64_t kernel, stride;
    int function;
} am_pool2d;
enum { AM_POOL_MAX, AM_POOL_MEAN };

static const am_param attrs[] = {
    {"kernel", AM_PARAM_INT, offsetof(am_pool2d, kernel), "2", 1, 15, NULL, "side of a window"},
    {"stride", AM_PARAM_INT, offsetof(am_pool2d, stride), "0", 0, 1 << 20, NULL,
     "pixels between windows, 0: the kernel"},
    {"function", AM_PARAM_CHOICE, offsetof(am_pool2d, function), "max", 0, 0, "max|mean",
     "what is taken of a window"},
    {0},
};

typedef struct am_pool_size {
    int64_t H, W, C, h, w, kernel, stride; /* input, output */
} am_pool_size;

static am_pool_size am_pool2d_size(const am_layer_site *s)
{
    const am_pool2d *o = s->attrs;
    am_pool_size z = {.H = s->in[0].d[0], .W = s->in[0].d[1], .C = s->in[0].d[2]};
    z.kernel = o->kernel;
    z.stride = o->stride > 0 ? o->stride : o->kernel;
    z.h = (z.H - z.kernel) / z.stride + 1;
    z.w = (z.W - z.kernel) / z.stride + 1;
    return z;
}

static int am_pool2d_shape(const am_layer_site *s, am_shape *out)
{
    if (s->in[0].n != 3) {
        return am_layer_fail(s, "takes an image [H,W,C], not %s: put the layer image before it",
                             am_shape_text(&s->in[0]));
    }
    const am_pool_size z = am_pool2d_size(s);
    *out = (am_shape){.n = 3, .d = {z.h, z.w, z.C}};
    if (z.H < z.kernel || z.W < z.kernel) {
        return am_layer_fail(s, "a window of %lld does not fit into %s", (long long)z.kernel,
                             am_shape_text(&s->in[0]));
    }
    return 0;
}

/* max: which element of the window, a byte for every output */
static int64_t am_pool2d_kept(const am_layer_site *s, int64_t B)
{
    const bool is_max = ((const am_pool2d *)s->attrs)->function == AM_POOL_MAX;
    return is_max ? B * am_shape_numel(&s->out) : 0;
}

/* Where the window of output pixel p (of the whole batch) begins. */
static int64_t am_pool2d_first(const am_pool_size *z, int64_t p)
{
    const int64_t b = p / (z->h * z->w), q = p % (z->h * z->w);
    return ((b * z->H + q / z->w * z->stride) * z->W + q % z->w * z->stride) * z->C;
}

/* Element i of a window, all channels, from its beginning on. */
static int64_t am_pool2d_offset(const am_pool_size *z, int64_t i)
{
    return (i / z->kernel * z->W + i % z->kernel) * z->C;
}

AM_CLONES static void am_pool2d_max(const am_pool_size *z, int64_t pixels, const real *x, real *y,
                                    unsigned char *which)
{
    const int64_t C = z->C;
    for (int64_t p = 0; p < pixels; p++) {
        const real *from = x + am_pool2d_first(z, p);
        real *restrict to = y + p * C;
        unsigned char *restrict at = which + p * C;
        memcpy(to, from, (size_t)C * sizeof(real));
        memset(at, 0, (size_t)C);
        for (int64_t i = 1; i < z->kernel * z->kernel; i++) {
            const real *restrict v = from + am_pool2d_offset(z, i);
            for (int64_t c = 0; c < C; c++) {
                const bool is_larger = v[c] > to[c] || v[c] != v[c]; /* NaN is seen */
                to[c] = is_larger ? v[c] : to[c];
                at[c] = is_larger ? (unsigned char)i : at[c];
            }
        }
    }
}

static void am_pool2d_mean(const am_pool_size *z, int64_t pixels, const real *x, real *y)
{
    const real share = 1 / (real)(z->kernel * z->kernel);
    memset(y, 0, (size_t)(pixels * z->C) * sizeof(real));
    for (int64_t p = 0; p < pixels; p++) {
        const real *from = x + am_pool2d_first(z, p);
        for (int64_t i = 0; i < z->kernel * z->kernel; i++) {
            AM_R(am_layer_sum)(z->C, from + am_pool2d_offset(z, i), y + p * z->C);
        }
        for (int64_t c = 0; c < z->C; c++) {
            y[p * z->C + c] *= share;
        }
    }
}

static void am_pool2d_forward(const am_layer_args *a)
{
    const am_pool_size z = am_pool2d_size(a->site);
    const int64_t pixels = a->B * z.h * z.w;
    if (a->keep == NULL) {
        am_pool2d_mean(&z, pixels, a->x[0], a->y);
    } else {
        am_pool2d_max(&z, pixels, a->x[0], a->y, a->keep);
    }
}

/* Gradients to where the largest values were. Windows that lie side by side and cover the image
 * overwrite; others add to zeros. */
AM_CLONES static void am_pool2d_give(const am_pool_size *z, int64_t pixels, bool add,
                                     const real *dy, const unsigned char *which, real *dx)
{
    const int64_t C = z->C;
    for (int64_t p = 0; p < pixels; p++) {
        real *to = dx + am_pool2d_first(z, p);
        const real *restrict d = dy + p * C;
        const unsigned char *restrict at = which + p * C;
        for (int64_t i = 0; i < z->kernel * z->kernel; i++) {
            const unsigned char n = (unsigned char)i;
            real *restrict v = to + am_pool2d_offset(z, i);
            for (int64_t c = 0; !add && c < C; c++) {
                v[c] = at[c] == n ? d[c] : 0;
            }
            for (int64_t c = 0; add && c < C; c++) {
                v[c] += at[c] == n ? d[c] : 0;
            }
        }
    }
}

static void am_pool2d_spread(const am_pool_size *z, int64_t pixels, const real *dy, real *dx)
{
    const real share = 1 / (real)(z->kernel * z->kernel);
    for (int64_t p = 0; p < pixels; p++) {
        for (int64_t i = 0; i < z->kernel * z->kernel; i++) {
            real *to = dx + am_pool2d_first(z, p) + am_pool2d_offset(z, i);
            for (int64_t c = 0; c < z->C; c++) {
                to[c] += share * dy[p * z->C + c];
            }
        }
    }
}

static void am_pool2d_backward(const am_layer_args *a)
{
    const am_pool_size z = am_pool2d_size(a->site);
    const int64_t pixels = a->B * z.h * z.w;
    const bool covers = z.stride == z.kernel && z.H == z.h * z.kernel && z.W == z.w * z.kernel;
    if (!covers || a->keep == NULL) {
        memset(a->dx[0], 0, (size_t)(a->B * am_shape_numel(&a->site->in[0])) * sizeof(real));
    }
    if (a->keep == NULL) {
        am_pool2d_spread(&z, pixels, a->dy, a->dx[0]);
    } else {
        am_pool2d_give(&z, pixels, !covers, a->dy, a->keep, a->dx[0]);
    }
}

static void am_pool2d_tangent(const am_layer_args *a)
{
    const am_pool_size z = am_pool2d_size(a->site);
    const int64_t pixels = a->B * z.h * z.w;
    const unsigned char *which = a->keep;
    if (which == NULL) {
        am_pool2d_mean(&z, pixels, a->x_dot[0], a->y_dot);
        return;
    }
    for (int64_t i = 0; i < pixels * z.C; i++) {
        const int64_t at = am_pool2d_first(&z, i / z.C) + am_pool2d_offset(&z, which[i]);
        a->y_dot[i] = a->x_dot[0][at + i % z.C];
    }
}

static void am_pool2d_curve(const am_layer_args *a)
{
    const am_layer_args dots = AM_R(am_layer_dots)(a);
    am_pool2d_backward(&dots);
}

const am_layer AM_R(am_layer_pool2d) = {
    .name = "pool2d",
    .summary = "largest or mean value of windows of an image",
    .attrs = attrs,
    .inputs = 1,
    .axes = {.rule = AM_AXES_SAME},
    .shape = am_pool2d_shape,
    .kept = am_pool2d_kept,
    .forward = am_pool2d_forward,
    .backward = am_pool2d_backward,
    .tangent = am_pool2d_tangent,
    .curve = am_pool2d_curve,
};
