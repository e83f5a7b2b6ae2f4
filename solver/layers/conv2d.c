/* Convolution of an image, channels last: straight from the pixels (real_conv.h) where windows lie
 * one pixel apart and are wide enough, else by products over blocks of gathered windows that stay
 * in the cache. The weight is [K,C,kh,kw] as others store it; a copy [K,kh,kw,C], or turned for
 * forward, matches the windows. Block and product shapes follow from the recipe alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "solver/training/real_activation.h"
#include "solver/training/real_conv.h"
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

/* Reals and rows of a block; rows come in the height of a tile of the product. */
enum { AM_CONV_BLOCK = 1 << 17, AM_CONV_LEAST = 36, AM_CONV_TILE = 6 };

typedef struct am_conv_size {
    int64_t H, W, C, h, w, K, k, stride, padding; /* input, output, kernel */
    int64_t window;                               /* k k C */
    int64_t rows;                                 /* of a block */
    int64_t samples, pixels;                      /* outputs of the batch */
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
    z.rows -= z.rows % AM_CONV_TILE;
    z.samples = B;
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
    return AM_LAYER_READS_X | AM_LAYER_X_FOR_PARAMS | y |
           (act == AM_ACT_NONE ? 0 : AM_LAYER_SPOILS_DY);
}

static int64_t am_conv2d_kept(const am_layer_site *s, int64_t B)
{
    const am_act act = (am_act)((const am_conv2d *)s->attrs)->activation;
    return AM_R(am_act_needs_z)(act) ? B * am_shape_numel(&s->out) * (int64_t)sizeof(real) : 0;
}

/* The weight [K,C,k,k] in the order of the windows, [K,k,k,C], or turned, [k,k,C,K]. */
static void am_conv2d_reorder(const am_conv_size *z, bool turned, const real *from, real *to)
{
    const int64_t area = z->k * z->k;
    for (int64_t n = 0; n < z->K; n++) {
        for (int64_t c = 0; c < z->C; c++) {
            for (int64_t i = 0; i < area; i++) {
                const int64_t at = i * z->C + c;
                to[turned ? at * z->K + n : n * z->window + at] = from[(n * z->C + c) * area + i];
            }
        }
    }
}

/* [K,C,k,k] from [K,k,k,C] */
static void am_conv2d_restore(const am_conv_size *z, const real *from, real *to)
{
    const int64_t area = z->k * z->k;
    for (int64_t n = 0; n < z->K; n++) {
        for (int64_t c = 0; c < z->C; c++) {
            for (int64_t i = 0; i < area; i++) {
                to[(n * z->C + c) * area + i] = from[n * z->window + i * z->C + c];
            }
        }
    }
}

/* Where a window lies: its sample, and its first line and column, which may be outside. */
typedef struct am_conv_place {
    int64_t b, row, column;
} am_conv_place;

static am_conv_place am_conv2d_place(const am_conv_size *z, int64_t p)
{
    const int64_t q = p % (z->h * z->w);
    return (am_conv_place){.b = p / (z->h * z->w),
                           .row = q / z->w * z->stride - z->padding,
                           .column = q % z->w * z->stride - z->padding};
}

/* To the window of the next output pixel. */
static void am_conv2d_next(const am_conv_size *z, am_conv_place *at)
{
    at->column += z->stride;
    if (at->column > (z->w - 1) * z->stride - z->padding) {
        at->column = -z->padding;
        at->row += z->stride;
        if (at->row > (z->h - 1) * z->stride - z->padding) {
            at->row = -z->padding;
            at->b++;
        }
    }
}

/* Of a line of the window, columns [lo, hi) are inside the image. */
static void am_conv2d_inside(const am_conv_size *z, const am_conv_place *at, int64_t *lo,
                             int64_t *hi)
{
    *lo = at->column < 0 ? -at->column : 0;
    *hi = at->column + z->k > z->W ? z->W - at->column : z->k;
    *hi = *hi > *lo ? *hi : *lo;
}

enum { AM_CONV_SHORT = 8 }; /* a line that is as short is moved as so many numbers */

static void am_conv2d_copy(real *to, const real *from, int64_t n, bool has_room)
{
    if (n <= AM_CONV_SHORT && has_room) {
        memcpy(to, from, AM_CONV_SHORT * sizeof(real));
    } else {
        memcpy(to, from, (size_t)n * sizeof(real));
    }
}

/* Windows of output pixels [lo, hi) into rows of `block`. A short line may spill into the place of
 * what comes after it. */
static void am_conv2d_gather(const am_conv_size *z, int64_t lo, int64_t hi, const real *x,
                             real *block)
{
    am_conv_place at = am_conv2d_place(z, lo);
    const int64_t length = z->k * z->C, end = z->samples * z->H * z->W * z->C;
    const int64_t lines = (hi - lo) * z->k;
    for (int64_t l = 0; l < lines; am_conv2d_next(z, &at)) {
        int64_t from, to;
        am_conv2d_inside(z, &at, &from, &to);
        for (int64_t i = 0; i < z->k; i++, l++) {
            real *line = block + l * length;
            const int64_t row = at.row + i;
            const bool is_out = row < 0 || row >= z->H || from == to;
            const int64_t first = ((at.b * z->H + row) * z->W + at.column) * z->C;
            if (!is_out && to - from == z->k) {
                const bool has_room =
                    (lines - l) * length >= AM_CONV_SHORT && first + AM_CONV_SHORT <= end;
                am_conv2d_copy(line, x + first, length, has_room);
                continue;
            }
            memset(line, 0, (size_t)length * sizeof(real));
            if (!is_out) {
                memcpy(line + from * z->C, x + first + from * z->C,
                       (size_t)((to - from) * z->C) * sizeof(real));
            }
        }
    }
}

/* The other way: add windows to the image. */
AM_CLONES static void am_conv2d_scatter(const am_conv_size *z, int64_t lo, int64_t hi,
                                        const real *block, real *x)
{
    am_conv_place at = am_conv2d_place(z, lo);
    for (int64_t p = lo; p < hi; p++, am_conv2d_next(z, &at)) {
        int64_t from, to;
        am_conv2d_inside(z, &at, &from, &to);
        for (int64_t i = 0; i < z->k; i++) {
            const real *restrict line = block + ((p - lo) * z->k + i) * z->k * z->C;
            const int64_t row = at.row + i;
            if (row < 0 || row >= z->H) {
                continue;
            }
            real *restrict image = x + ((at.b * z->H + row) * z->W + at.column) * z->C;
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

/* z [pixels,K] (+)= windows(x) W^T; the weight is turned */
static void am_conv2d_product(const am_conv_size *z, const real *x, const real *weight, bool add,
                              real *block, real *out)
{
    for (int64_t lo = 0; lo < z->pixels; lo += z->rows) {
        const int64_t hi = am_conv2d_end(z, lo);
        am_conv2d_gather(z, lo, hi, x, block);
        AM_R(am_gemm_to)
        (false, false, hi - lo, z->K, z->window, block, weight, add, out + lo * z->K);
    }
}

/* ---- straight from the pixels ---- */

#ifdef AM_HAS_TILES
/* Reals of a line of a window, from which on that is faster than gathering. */
enum { AM_CONV_WIDE = 32 };

static bool am_conv2d_is_straight(const am_conv_size *z)
{
    return z->stride == 1 && z->padding < z->k && z->k * z->C >= AM_CONV_WIDE &&
           AM_R(am_tile_suits)();
}

/* Forward: windows of the padded input. Backward: those of the padded gradient, whose outputs are
 * the pixels of the input. */
static am_conv_windows am_conv2d_windows(const am_conv_size *z)
{
    return (am_conv_windows){.h = z->h, .w = z->w, .C = z->C, .k = z->k};
}
static am_conv_windows am_conv2d_back_windows(const am_conv_size *z)
{
    return (am_conv_windows){.h = z->H, .w = z->W, .C = z->K, .k = z->k};
}

/* The arrays of a straight pass: a weight in the order of its windows (backward: or its gradient),
 * one packed, a padded image, and for backward a padded gradient and packed gradients. */
typedef struct am_conv_arrays {
    real *weight, *packed, *image, *gradient, *turned;
    int64_t reals; /* of all */
} am_conv_arrays;

static am_conv_arrays am_conv2d_arrays(const am_conv_size *z, real *scratch)
{
    const am_conv_windows s = am_conv2d_windows(z), back = am_conv2d_back_windows(z);
    const int64_t forth = AM_R(am_conv_weight_reals)(&s, z->K);
    const int64_t panels = AM_R(am_conv_weight_reals)(&back, z->C);
    am_conv_arrays r = {.image = scratch}; /* vectors of the image start at lines of the cache */
    int64_t at = AM_R(am_conv_image_reals)(&s);
    at += -at & 15;
    r.packed = scratch == NULL ? NULL : scratch + at;
    at += forth > panels ? forth : panels;
    r.weight = scratch == NULL ? NULL : scratch + at;
    at += z->K * z->window;
    r.gradient = scratch == NULL ? NULL : scratch + at;
    at += AM_R(am_conv_image_reals)(&back);
    r.turned = scratch == NULL ? NULL : scratch + at;
    r.reals = at + AM_R(am_conv_gradient_reals)(&s, z->K);
    return r;
}
static int64_t am_conv2d_straight_reals(const am_conv_size *z)
{
    return am_conv2d_arrays(z, NULL).reals;
}

static void am_conv2d_forward_straight(const am_layer_args *a, const am_conv_size *z, real *out)
{
    const am_conv2d *o = a->site->attrs;
    const am_conv_windows s = am_conv2d_windows(z);
    const am_conv_arrays r = am_conv2d_arrays(z, a->scratch);
    const int64_t pixels = z->h * z->w;
    am_conv2d_reorder(z, true, a->param[0], r.weight);
    AM_R(am_conv_pack)(&s, z->K, r.weight, r.packed);
    memset(r.image, 0, (size_t)AM_R(am_conv_image_reals)(&s) * sizeof(real));
    for (int64_t b = 0; b < a->B; b++, out += pixels * z->K) {
        AM_R(am_conv_pad)(&s, z->padding, a->x[0] + b * z->H * z->W * z->C, r.image);
        AM_R(am_conv_apply)(&s, r.image, r.packed, z->K, false, out);
        AM_R(am_act_forward_both)
        ((am_act)o->activation, pixels, z->K, o->bias ? a->param[1] : NULL, out,
         a->y + b * pixels * z->K);
    }
}

/* [k,k,K,C], turned by half a circle: the gradient of a pixel is made of windows of dz. */
static void am_conv2d_turn(const am_conv_size *z, const real *from, real *to)
{
    const int64_t area = z->k * z->k;
    for (int64_t n = 0; n < z->K; n++) {
        for (int64_t c = 0; c < z->C; c++) {
            for (int64_t i = 0; i < area; i++) {
                to[((area - 1 - i) * z->K + n) * z->C + c] = from[(n * z->C + c) * area + i];
            }
        }
    }
}

static void am_conv2d_backward_straight(const am_layer_args *a, const am_conv_size *z)
{
    const am_conv_windows s = am_conv2d_windows(z), back = am_conv2d_back_windows(z);
    const am_conv_arrays r = am_conv2d_arrays(z, a->scratch);
    const int64_t image = z->H * z->W * z->C, pixels = z->h * z->w;
    if (a->dx[0] != NULL) {
        am_conv2d_turn(z, a->param[0], r.weight);
        AM_R(am_conv_pack)(&back, z->C, r.weight, r.packed);
        memset(r.gradient, 0, (size_t)AM_R(am_conv_image_reals)(&back) * sizeof(real));
    }
    memset(r.image, 0, (size_t)AM_R(am_conv_image_reals)(&s) * sizeof(real));
    for (int64_t b = 0; b < a->B; b++) {
        const real *dz = a->dy + b * pixels * z->K;
        if (a->dparam[0] != NULL) { /* the weight is packed, its place is the gradient's */
            AM_R(am_conv_pad)(&s, z->padding, a->x[0] + b * image, r.image);
            AM_R(am_conv_gradient)(&s, r.image, dz, z->K, b > 0, r.turned, r.weight);
        }
        if (a->dx[0] != NULL) {
            AM_R(am_conv_pad)(&back, z->k - 1 - z->padding, dz, r.gradient);
            AM_R(am_conv_apply)(&back, r.gradient, r.packed, z->C, a->add[0], a->dx[0] + b * image);
        }
    }
    if (a->dparam[0] != NULL) {
        am_conv2d_restore(z, r.weight, a->dparam[0]);
    }
}
#else
static bool am_conv2d_is_straight(const am_conv_size *z)
{
    (void)z;
    return false;
}
static int64_t am_conv2d_straight_reals(const am_conv_size *z)
{
    (void)z;
    return 0;
}
static void am_conv2d_forward_straight(const am_layer_args *a, const am_conv_size *z, real *out)
{
    (void)a, (void)z, (void)out;
}
static void am_conv2d_backward_straight(const am_layer_args *a, const am_conv_size *z)
{
    (void)a, (void)z;
}
#endif

/* ---- the layer ---- */

/* By gathered windows: two weights in their order (backward: one and its gradient), then a block.
 */
static int64_t am_conv2d_scratch(const am_layer_site *s, int64_t B)
{
    const am_conv_size z = am_conv2d_size(s, B);
    const int64_t straight = am_conv2d_is_straight(&z) ? am_conv2d_straight_reals(&z) : 0;
    const int64_t reals = 2 * z.K * z.window + z.rows * z.window;
    return (straight > reals ? straight : reals) * (int64_t)sizeof(real);
}

/* Three weights in the order of the windows and a block, then dz [pixels,K]. */
static int64_t am_conv2d_curve_scratch(const am_layer_site *s, int64_t B)
{
    const am_conv_size z = am_conv2d_size(s, B);
    return (3 * z.K * z.window + z.rows * z.window + z.pixels * z.K) * (int64_t)sizeof(real);
}

static void am_conv2d_forward(const am_layer_args *a)
{
    const am_conv2d *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const am_conv_size z = am_conv2d_size(a->site, a->B);
    real *weight = a->scratch, *block = weight + 2 * z.K * z.window;
    real *out = AM_R(am_act_needs_z)(act) ? a->keep : a->y;
    if (am_conv2d_is_straight(&z)) {
        am_conv2d_forward_straight(a, &z, out);
        return;
    }
    am_conv2d_reorder(&z, true, a->param[0], weight);
    for (int64_t lo = 0; lo < z.pixels; lo += z.rows) { /* bias and function while in the cache */
        const int64_t hi = am_conv2d_end(&z, lo);
        am_conv2d_gather(&z, lo, hi, a->x[0], block);
        AM_R(am_gemm)(false, false, hi - lo, z.K, z.window, block, weight, out + lo * z.K);
        AM_R(am_act_forward_both)
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
    AM_R(am_act_backward_both)(act, z.pixels * z.K, from, a->dy, a->dy);
    if (o->bias) {
        AM_R(am_layer_column_sum)(z.pixels, z.K, a->dy, a->dparam[1]);
    }
    if (am_conv2d_is_straight(&z)) {
        am_conv2d_backward_straight(a, &z);
        return;
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
        am_conv2d_restore(&z, dweight, a->dparam[0]);
    }
}

/* z [pixels,K] += bias */
static void am_conv2d_shift(const am_layer_args *a, const real *const *param, int64_t pixels,
                            real *out)
{
    const am_conv2d *o = a->site->attrs;
    AM_R(am_act_forward)(AM_ACT_NONE, pixels, o->out, o->bias ? param[1] : NULL, out, out);
}

/* y_dot = z_dot act'(z) with z_dot = windows(x_dot) W^T + windows(x) W_dot^T + b_dot;  kept:
 * act''(z) z_dot, for which z is made again */
static void am_conv2d_tangent(const am_layer_args *a)
{
    const am_conv2d *o = a->site->attrs;
    const am_act act = (am_act)o->activation;
    const am_conv_size z = am_conv2d_size(a->site, a->B);
    real *weight = a->scratch, *block = weight + 2 * z.K * z.window;
    am_conv2d_reorder(&z, true, a->param_dot[0], weight);
    am_conv2d_product(&z, a->x[0], weight, false, block, a->y_dot);
    if (a->x_dot[0] != NULL) {
        am_conv2d_reorder(&z, true, a->param[0], weight);
        am_conv2d_product(&z, a->x_dot[0], weight, true, block, a->y_dot);
    }
    am_conv2d_shift(a, a->param_dot, z.pixels, a->y_dot);
    if (a->keep_dot != NULL) {
        am_conv2d_reorder(&z, true, a->param[0], weight);
        am_conv2d_product(&z, a->x[0], weight, false, block, a->keep_dot);
        am_conv2d_shift(a, a->param, z.pixels, a->keep_dot);
        AM_R(am_act_bend)(act, z.pixels * z.K, a->keep_dot, a->y_dot);
    }
    const real *from = AM_R(am_act_needs_z)(act) ? a->keep : a->y;
    AM_R(am_act_backward_both)(act, z.pixels * z.K, from, a->y_dot, a->y_dot);
}

/* dz_dot = dy_dot act'(z) + dy act''(z) z_dot, in place, dz = dy act'(z);  returns dz */
static const real *am_conv2d_curve_outputs(const am_layer_args *a, int64_t n, real *scratch)
{
    const am_act act = (am_act)((const am_conv2d *)a->site->attrs)->activation;
    const bool needs_z = AM_R(am_act_needs_z)(act);
    const real *from = needs_z ? a->keep : a->y;
    if (act == AM_ACT_NONE) {
        return a->dy;
    }
    AM_R(am_act_curve_both)
    (act, n, from, needs_z ? a->keep_dot : a->y_dot, a->dy, a->dy_dot, a->dy_dot);
    AM_R(am_act_backward_both)(act, n, from, a->dy, scratch);
    return scratch;
}

/* dW_dot = sum over blocks of dz_dot^T windows(x) + dz^T windows(x_dot);  db_dot = sum of dz_dot;
 * dx_dot = scatter of dz_dot W + dz W_dot */
static void am_conv2d_curve(const am_layer_args *a)
{
    const am_conv_size z = am_conv2d_size(a->site, a->B);
    const int64_t size = z.K * z.window;
    real *weight = a->scratch, *weight_dot = weight + size, *sum = weight_dot + size;
    real *block = sum + size;
    const real *dz = am_conv2d_curve_outputs(a, z.pixels * z.K, block + z.rows * z.window);
    if (((const am_conv2d *)a->site->attrs)->bias) {
        AM_R(am_layer_column_sum)(z.pixels, z.K, a->dy_dot, a->dparam_dot[1]);
    }
    am_conv2d_reorder(&z, false, a->param[0], weight);
    am_conv2d_reorder(&z, false, a->param_dot[0], weight_dot);
    if (a->dx_dot[0] != NULL && !a->add[0]) {
        memset(a->dx_dot[0], 0, (size_t)(a->B * z.H * z.W * z.C) * sizeof(real));
    }
    for (int64_t lo = 0; lo < z.pixels; lo += z.rows) {
        const int64_t hi = am_conv2d_end(&z, lo), n = hi - lo;
        const real *d = dz + lo * z.K, *d_dot = a->dy_dot + lo * z.K;
        if (a->dparam_dot[0] != NULL) {
            am_conv2d_gather(&z, lo, hi, a->x[0], block);
            AM_R(am_gemm_to)(true, false, z.K, z.window, n, d_dot, block, lo > 0, sum);
        }
        if (a->dparam_dot[0] != NULL && a->x_dot[0] != NULL) {
            am_conv2d_gather(&z, lo, hi, a->x_dot[0], block);
            AM_R(am_gemm_to)(true, false, z.K, z.window, n, d, block, true, sum);
        }
        if (a->dx_dot[0] != NULL) {
            AM_R(am_gemm)(false, false, n, z.window, z.K, d_dot, weight, block);
            AM_R(am_gemm_to)(false, false, n, z.window, z.K, d, weight_dot, true, block);
            am_conv2d_scatter(&z, lo, hi, block, a->dx_dot[0]);
        }
    }
    if (a->dparam_dot[0] != NULL) {
        am_conv2d_restore(&z, sum, a->dparam_dot[0]);
    }
}

static int64_t am_conv2d_product_terms(const am_layer_site *s)
{
    return am_conv2d_size(s, 1).window;
}

static int64_t am_conv2d_product_rows(const am_layer_site *s)
{
    return am_conv2d_size(s, 1).pixels;
}

/* Windows [C,k,k] of output pixels [lo, hi), zeros outside the image. */
static void am_conv2d_product_inputs(const am_layer_args *a, int64_t lo, int64_t hi, double *to)
{
    const am_conv_size z = am_conv2d_size(a->site, a->B);
    am_conv_place at = am_conv2d_place(&z, lo);
    for (int64_t p = lo; p < hi; p++, am_conv2d_next(&z, &at)) {
        const real *image = a->x[0] + at.b * z.H * z.W * z.C;
        for (int64_t c = 0; c < z.C; c++) {
            for (int64_t i = at.row; i < at.row + z.k; i++) {
                for (int64_t j = at.column; j < at.column + z.k; j++) {
                    const bool is_inside = i >= 0 && i < z.H && j >= 0 && j < z.W;
                    *to++ = is_inside ? (double)image[(i * z.W + j) * z.C + c] : 0;
                }
            }
        }
    }
}

const am_layer AM_R(am_layer_conv2d) = {
    .name = "conv2d",
    .summary = "convolution of an image: act(windows(x) W^T + b)",
    .attrs = attrs,
    .inputs = 1,
    .adds_dx = true,
    .axes = {.rule = AM_AXES_NEW, .param = {{AM_AXIS_OUT, AM_AXIS_IN}, {AM_AXIS_OUT}}},
    .shape = am_conv2d_shape,
    .params = am_conv2d_params,
    .uses = am_conv2d_uses,
    .kept = am_conv2d_kept,
    .scratch = am_conv2d_scratch,
    .kept_dot = am_conv2d_kept,
    .curve_scratch = am_conv2d_curve_scratch,
    .product_terms = am_conv2d_product_terms,
    .product_rows = am_conv2d_product_rows,
    .product_inputs = am_conv2d_product_inputs,
    .forward = am_conv2d_forward,
    .backward = am_conv2d_backward,
    .tangent = am_conv2d_tangent,
    .curve = am_conv2d_curve,
};
