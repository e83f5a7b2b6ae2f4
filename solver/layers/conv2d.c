/* Convolution of an image, channels last, by products over blocks of gathered windows that stay in
 * the cache. The weight is [K,C,kh,kw] as others store it; a copy [K,kh,kw,C] matches the windows.
 * Block and product shapes follow from the recipe alone. SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "solver/training/real_activation.h"
#include "solver/training/real_layer.h"

typedef struct am_conv2d {
    int64_t out, kernel, stride, padding;
    bool bias;
    int activation;
} am_conv2d;

static const am_param attrs[] = {
    {"out", AM_PARAM_INT, offsetof(am_conv2d, out), NULL, 1, INT32_MAX, NULL, "output channels"},
    {"kernel", AM_PARAM_INT, offsetof(am_conv2d, kernel), "3", 1, 255, NULL, "side of a window"},
    {"stride", AM_PARAM_INT, offsetof(am_conv2d, stride), "1", 1, 1 << 20, NULL,
     "pixels between windows"},
    {"padding", AM_PARAM_INT, offsetof(am_conv2d, padding), "0", 0, 254, NULL,
     "zeros on every side"},
    {"bias", AM_PARAM_BOOL, offsetof(am_conv2d, bias), "yes", 0, 0, NULL, "add a bias"},
    {"activation", AM_PARAM_CHOICE, offsetof(am_conv2d, activation), "none", 0, 0, AM_ACT_CHOICES,
     "function of the outputs"},
    {0},
};

enum { AM_CONV_BLOCK = 1 << 16, AM_CONV_LEAST = 32 }; /* reals and rows of a block */

typedef struct am_conv_size {
    int64_t H, W, C, h, w, K, k, stride, padding; /* input, output, kernel */
    int64_t window;                               /* k k C */
    int64_t rows;                                 /* of a block */
    int64_t pixels;                               /* outputs of the batch */
} am_conv_size;

static am_conv_size am_conv2d_size(const am_layer_site *s, int64_t B)
{
    const am_conv2d *o = s->attrs;
    am_conv_size z = {.H = s->in[0].d[0], .W = s->in[0].d[1], .C = s->in[0].d[2]};
    z.K = o->out;
    z.k = o->kernel;
    z.stride = o->stride;
    z.padding = o->padding;
    z.h = (z.H + 2 * z.padding - z.k) / z.stride + 1;
    z.w = (z.W + 2 * z.padding - z.k) / z.stride + 1;
    z.window = z.k * z.k * z.C;
    z.rows = AM_CONV_BLOCK / z.window > AM_CONV_LEAST ? AM_CONV_BLOCK / z.window : AM_CONV_LEAST;
    z.pixels = B * z.h * z.w;
    z.rows = z.rows < z.pixels ? z.rows : z.pixels;
    return z;
}

static int am_conv2d_shape(const am_layer_site *s, am_shape *out)
{
    if (s->in[0].n != 3) {
        return am_layer_fail(s, "takes an image [H,W,C], not %s: put the layer image before it",
                             am_shape_text(&s->in[0]));
    }
    const am_conv_size z = am_conv2d_size(s, 1);
    *out = (am_shape){.n = 3, .d = {z.h, z.w, z.K}};
    if (z.H + 2 * z.padding < z.k || z.W + 2 * z.padding < z.k) {
        return am_layer_fail(s, "a window of %lld does not fit into %s with padding %lld",
                             (long long)z.k, am_shape_text(&s->in[0]), (long long)z.padding);
    }
    return 0;
}

static int am_conv2d_params(const am_layer_site *s, am_layer_param *p)
{
    const am_conv2d *o = s->attrs;
    const int64_t C = s->in[0].d[2], area = o->kernel * o->kernel;
    p[0] = (am_layer_param){.suffix = "weight", .n = 4, .d = {o->out, C, o->kernel, o->kernel}};
    p[0].sigma = sqrt(AM_R(am_act_variance)((am_act)o->activation, C * area, o->out * area));
    p[1] = (am_layer_param){.suffix = "bias", .n = 1, .d = {o->out}};
    return o->bias ? 2 : 1;
}

static unsigned am_conv2d_uses(const am_layer_site *s)
{
    const am_act act = (am_act)((const am_conv2d *)s->attrs)->activation;
    const unsigned y = act == AM_ACT_NONE || AM_R(am_act_needs_z)(act) ? 0 : AM_LAYER_READS_Y;
    return AM_LAYER_READS_X | AM_LAYER_X_FOR_PARAMS | y | (act == AM_ACT_NONE ? 0 : AM_LAYER_SPOILS_DY);
}

static int64_t am_conv2d_kept(const am_layer_site *s, int64_t B)
{
    const am_act act = (am_act)((const am_conv2d *)s->attrs)->activation;
    return AM_R(am_act_needs_z)(act) ? B * am_shape_numel(&s->out) * (int64_t)sizeof(real) : 0;
}

/* Two weights in the order of the windows (backward: one and its gradient), then a block. */
static int64_t am_conv2d_scratch(const am_layer_site *s, int64_t B)
{
    const am_conv_size z = am_conv2d_size(s, B);
    return (2 * z.K * z.window + z.rows * z.window) * (int64_t)sizeof(real);
}

/* to [K,k,k,C] from [K,C,k,k], or back */
static void am_conv2d_reorder(const am_conv_size *z, bool back, const real *from, real *to)
{
    const int64_t area = z->k * z->k;
    for (int64_t n = 0; n < z->K; n++) {
        for (int64_t c = 0; c < z->C; c++) {
            for (int64_t i = 0; i < area; i++) {
                const int64_t stored = (n * z->C + c) * area + i;
                const int64_t used = (n * area + i) * z->C + c;
                to[back ? stored : used] = from[back ? used : stored];
            }
        }
    }
}

/* One line of a window: columns [lo, hi) of its k are inside the image. */
static void am_conv2d_line(const am_conv_size *z, int64_t p, int64_t i, int64_t *at, int64_t *lo,
                           int64_t *hi)
{
    const int64_t b = p / (z->h * z->w), q = p % (z->h * z->w);
    const int64_t row = q / z->w * z->stride - z->padding + i;
    const int64_t left = q % z->w * z->stride - z->padding;
    *lo = left < 0 ? -left : 0;
    *hi = left + z->k > z->W ? z->W - left : z->k;
    if (row < 0 || row >= z->H || *hi < *lo) {
        *lo = *hi = 0;
    }
    *at = ((b * z->H + row) * z->W + left) * z->C;
}

/* Windows of output pixels [lo, hi) into rows of `block`. */
static void am_conv2d_gather(const am_conv_size *z, int64_t lo, int64_t hi, const real *x,
                             real *block)
{
    for (int64_t p = lo; p < hi; p++) {
        for (int64_t i = 0; i < z->k; i++) {
            real *line = block + ((p - lo) * z->k + i) * z->k * z->C;
            int64_t at, from, to;
            am_conv2d_line(z, p, i, &at, &from, &to);
            if (to - from < z->k) {
                memset(line, 0, (size_t)(z->k * z->C) * sizeof(real));
            }
            if (to > from) {
                memcpy(line + from * z->C, x + at + from * z->C,
                       (size_t)((to - from) * z->C) * sizeof(real));
            }
        }
    }
}

/* The other way: add windows to the image. */
AM_CLONES static void am_conv2d_scatter(const am_conv_size *z, int64_t lo, int64_t hi,
                                        const real *block, real *x)
{
    for (int64_t p = lo; p < hi; p++) {
        for (int64_t i = 0; i < z->k; i++) {
            const real *restrict line = block + ((p - lo) * z->k + i) * z->k * z->C;
            int64_t at, from, to;
            am_conv2d_line(z, p, i, &at, &from, &to);
            real *restrict image = x + at;
            for (int64_t j = from * z->C; j < to * z->C; j++) {
                image[j] += line[j];
            }
        }
    }
}

static int64_t am_conv2d_end(const am_conv_size *z, int64_t lo)
{
    return z->pixels - lo < z->rows ? z->pixels : lo + z->rows;
}

/* z [pixels,K] (+)= windows(x) W^T */
static void am_conv2d_product(const am_conv_size *z, const real *x, const real *weight, bool add,
                              real *block, real *out)
{
    for (int64_t lo = 0; lo < z->pixels; lo += z->rows) {
        const int64_t hi = am_conv2d_end(z, lo);
        am_conv2d_gather(z, lo, hi, x, block);
        AM_R(am_gemm_to)
        (false, true, hi - lo, z->K, z->window, block, weight, add, out + lo * z->K);
    }
}

static void am_conv2d_forward(const am_layer_args *a)
{
    const am_conv2d *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const am_conv_size z = am_conv2d_size(a->site, a->B);
    real *weight = a->scratch, *block = weight + 2 * z.K * z.window;
    real *out = AM_R(am_act_needs_z)(act) ? a->keep : a->y;
    am_conv2d_reorder(&z, false, a->param[0], weight);
    for (int64_t lo = 0; lo < z.pixels; lo += z.rows) { /* bias and function while in the cache */
        const int64_t hi = am_conv2d_end(&z, lo);
        am_conv2d_gather(&z, lo, hi, a->x[0], block);
        AM_R(am_gemm)(false, true, hi - lo, z.K, z.window, block, weight, out + lo * z.K);
        AM_R(am_act_forward)
        (act, hi - lo, z.K, o->bias ? a->param[1] : NULL, out + lo * z.K, a->y + lo * z.K);
    }
}

/* dz = dy act', in place;  dW = sum over blocks of dz^T windows(x);  dx = scatter of dz W */
static void am_conv2d_backward(const am_layer_args *a)
{
    const am_conv2d *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const am_conv_size z = am_conv2d_size(a->site, a->B);
    real *weight = a->scratch, *dweight = weight + z.K * z.window,
         *block = dweight + z.K * z.window;
    const real *from = AM_R(am_act_needs_z)(act) ? a->keep : a->y;
    AM_R(am_act_backward)(act, z.pixels * z.K, from, a->dy, a->dy);
    if (o->bias) {
        AM_R(am_layer_column_sum)(z.pixels, z.K, a->dy, a->dparam[1]);
    }
    am_conv2d_reorder(&z, false, a->param[0], weight);
    if (a->dx[0] != NULL && !a->add[0]) {
        memset(a->dx[0], 0, (size_t)(a->B * z.H * z.W * z.C) * sizeof(real));
    }
    for (int64_t lo = 0; lo < z.pixels; lo += z.rows) {
        const int64_t hi = am_conv2d_end(&z, lo);
        const real *dz = a->dy + lo * z.K;
        if (a->dparam[0] != NULL) {
            am_conv2d_gather(&z, lo, hi, a->x[0], block);
            AM_R(am_gemm_to)(true, false, z.K, z.window, hi - lo, dz, block, lo > 0, dweight);
        }
        if (a->dx[0] != NULL) {
            AM_R(am_gemm)(false, false, hi - lo, z.window, z.K, dz, weight, block);
            am_conv2d_scatter(&z, lo, hi, block, a->dx[0]);
        }
    }
    if (a->dparam[0] != NULL) {
        am_conv2d_reorder(&z, true, dweight, a->dparam[0]);
    }
}

static void am_conv2d_tangent(const am_layer_args *a)
{
    const am_conv2d *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const am_conv_size z = am_conv2d_size(a->site, a->B);
    real *weight = a->scratch, *block = weight + 2 * z.K * z.window;
    am_conv2d_reorder(&z, false, a->param_dot[0], weight);
    am_conv2d_product(&z, a->x[0], weight, false, block, a->y_dot);
    if (a->x_dot[0] != NULL) {
        am_conv2d_reorder(&z, false, a->param[0], weight);
        am_conv2d_product(&z, a->x_dot[0], weight, true, block, a->y_dot);
    }
    const real *bias_dot = o->bias ? a->param_dot[1] : NULL;
    AM_R(am_act_forward)(AM_ACT_NONE, z.pixels, z.K, bias_dot, a->y_dot, a->y_dot);
    const real *from = AM_R(am_act_needs_z)(act) ? a->keep : a->y;
    AM_R(am_act_backward)(act, z.pixels * z.K, from, a->y_dot, a->y_dot);
}

const am_layer AM_R(am_layer_conv2d) = {
    .name = "conv2d",
    .summary = "convolution of an image: act(windows(x) W^T + b)",
    .attrs = attrs,
    .inputs = 1,
    .adds_dx = true,
    .shape = am_conv2d_shape,
    .params = am_conv2d_params,
    .uses = am_conv2d_uses,
    .kept = am_conv2d_kept,
    .scratch = am_conv2d_scratch,
    .forward = am_conv2d_forward,
    .backward = am_conv2d_backward,
    .tangent = am_conv2d_tangent,
};
