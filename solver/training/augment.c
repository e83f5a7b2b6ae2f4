/* Augmentation of training samples: see augment.h.
 *
 * Shift, mirror and crop are one map on each axis, from a pixel of the output to a place in the
 * input, u = scale * i + start, read by linear interpolation between its two neighbours. A shift or
 * a mirror alone has whole u and copies values exactly.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/augment.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mpi/arena.h"
#include "mpi/error.h"

static const am_param params[] = {
    {"augment_shift", AM_PARAM_INT, offsetof(am_augment_options, shift), "0", 0, 1e6, NULL,
     "training images move by up to so many pixels, up or down and left or right"},
    {"augment_flip", AM_PARAM_REAL, offsetof(am_augment_options, flip), "0", 0, 1, NULL,
     "probability that a training image is mirrored, left to right"},
    {"augment_crop", AM_PARAM_REAL, offsetof(am_augment_options, crop), "0", 0, 0.99, NULL,
     "share of height and width cut away at most; the rest is stretched to the whole image"},
    {"augment_noise", AM_PARAM_REAL, offsetof(am_augment_options, noise), "0", 0, 1e6, NULL,
     "standard deviation of normal noise on every training input"},
    {0},
};

/* Draws of one sample for its place; the counter is DRAWS * sample + draw. */
enum { DRAW_DOWN, DRAW_RIGHT, DRAW_FLIP, DRAW_SIZE, DRAW_TOP, DRAW_LEFT, DRAWS };

const am_param *am_augment_params(void)
{
    return params;
}

static bool moves(const am_augment_options *o)
{
    return o->shift > 0 || o->flip > 0 || o->crop > 0;
}

bool am_augment_is_on(const am_augment_options *o)
{
    return moves(o) || o->noise > 0;
}

/* ---- make ---- */

/* [height,width,channels] of a sample; false: it is no image. */
static bool image_shape(const am_net *net, am_shape *out)
{
    int64_t side = 1;
    for (int i = 0; i < net->n; i++) {
        const am_net_node *node = &net->node[i];
        if (node->in[0] == AM_NET_SAMPLES && strcmp(node->layer->name, "image") == 0) {
            *out = node->site.out;
            return true;
        }
    }
    while (side * side < net->features) {
        side++;
    }
    *out = (am_shape){.n = 3, .d = {side, side, 1}};
    return side * side == net->features;
}

static int axis_make(int64_t n, am_augment_axis *out)
{
    out->n = n;
    out->near = am_new(n, sizeof *out->near, "augmentation");
    out->weight = am_new(n, sizeof *out->weight, "augmentation");
    return out->near == NULL || out->weight == NULL ? AM_E_NOMEM : 0;
}

int am_augment_make(const am_augment_options *options, const am_net *net, const am_samples *from,
                    const char *task, uint64_t seed, const char *purpose, int64_t round,
                    am_augment *out)
{
    am_shape shape = {0};
    *out = (am_augment){.options = *options,
                        .from = *from,
                        .task = task,
                        .seed = seed,
                        .purpose = purpose,
                        .round = round};
    if (net->takes_ids) {
        return am_fail(AM_E_RECIPE,
                       "task %s: token ids cannot be augmented: set the augment_ keys "
                       "to 0",
                       task);
    }
    if (!image_shape(net, &shape) && moves(options)) {
        return am_fail(AM_E_RECIPE,
                       "task %s: %lld features are no square image: only augment_noise can be "
                       "used here",
                       task, (long long)net->features);
    }
    out->channels = shape.d[2];
    int rc = axis_make(shape.d[0], &out->y);
    AM_KEEP(axis_make(shape.d[1], &out->x));
    out->image = am_new(net->features, sizeof *out->image, "augmentation");
    if (rc == 0 && out->image == NULL) {
        rc = AM_E_NOMEM;
    }
    am_augment_pass(out, 0);
    return rc;
}

void am_augment_free(am_augment *a)
{
    free(a->y.near);
    free(a->y.weight);
    free(a->x.near);
    free(a->x.weight);
    free(a->image);
    *a = (am_augment){0};
}

void am_augment_pass(am_augment *a, int64_t pass)
{
    char name[512];
    snprintf(name, sizeof name, "%s %s", a->purpose, a->task);
    a->place = am_rng_make(a->seed, "augment place", a->round, pass, name);
    a->noise = am_rng_make(a->seed, "augment noise", a->round, pass, name);
}

/* ---- one sample ---- */

/* u = scale * i + start of every pixel, kept inside the image. */
static void axis_set(am_augment_axis *axis, double scale, double start)
{
    const double last = (double)(axis->n - 1);
    for (int64_t i = 0; i < axis->n; i++) {
        double u = scale * (double)i + start;
        u = u < 0 ? 0 : u > last ? last : u;
        axis->near[i] = (int64_t)u; /* u >= 0: the floor */
        axis->weight[i] = (float)(u - (double)axis->near[i]);
    }
}

/* Of a window of share `size`, which begins at share `at` of what is cut away, mirrored or not,
 * then moved by `shift` pixels. Pixel centres are at i + 1/2. */
static void axis_place(am_augment_axis *axis, double size, double at, bool is_mirrored,
                       double shift)
{
    const double n = (double)axis->n, start = at * (1 - size) * n + size / 2 - 0.5;
    if (is_mirrored) { /* pixel i of the mirror is pixel n - 1 - i of the window */
        axis_set(axis, -size, start + size * (n - 1 + shift));
    } else {
        axis_set(axis, size, start - size * shift);
    }
}

/* A whole number in [-most, most]. */
static double draw_shift(const am_rng *rng, int64_t index, int64_t most)
{
    return floor(am_rng_uniform(rng, index) * (double)(2 * most + 1)) - (double)most;
}

static void place(am_augment *a, int64_t sample)
{
    const am_augment_options *o = &a->options;
    const am_rng *rng = &a->place;
    const int64_t at = DRAWS * sample;
    const double down = draw_shift(rng, at + DRAW_DOWN, o->shift);
    const double right = draw_shift(rng, at + DRAW_RIGHT, o->shift);
    const bool is_mirrored = am_rng_uniform(rng, at + DRAW_FLIP) < o->flip;
    const double size = 1 - o->crop * am_rng_uniform(rng, at + DRAW_SIZE);
    axis_place(&a->y, size, am_rng_uniform(rng, at + DRAW_TOP), false, down);
    axis_place(&a->x, size, am_rng_uniform(rng, at + DRAW_LEFT), is_mirrored, right);
}

static float between(float first, float second, float weight)
{
    return weight > 0 ? first + weight * (second - first) : first;
}

/* to[r,c,:] from the four neighbours of its place in the image. */
static void move(const am_augment *a, const float *image, float *to)
{
    const int64_t W = a->x.n, C = a->channels;
    for (int64_t r = 0; r < a->y.n; r++) {
        const float *upper = image + a->y.near[r] * W * C;
        const float *lower = a->y.weight[r] > 0 ? upper + W * C : upper;
        for (int64_t c = 0; c < W; c++) {
            const int64_t left = a->x.near[c] * C, right = a->x.weight[c] > 0 ? left + C : left;
            for (int64_t k = 0; k < C; k++) {
                const float above = between(upper[left + k], upper[right + k], a->x.weight[c]);
                const float below = between(lower[left + k], lower[right + k], a->x.weight[c]);
                *to++ = between(above, below, a->y.weight[r]);
            }
        }
    }
}

static int gather(void *self, const int64_t *index, int64_t count, float *x, int32_t *y)
{
    am_augment *a = self;
    const int64_t F = a->from.features;
    const int rc = a->from.gather(a->from.self, index, count, x, y);
    for (int64_t b = 0; rc == 0 && b < count; b++) {
        float *sample = x + b * F;
        if (moves(&a->options)) {
            memcpy(a->image, sample, (size_t)F * sizeof *sample);
            place(a, index[b]);
            move(a, a->image, sample);
        }
        for (int64_t i = 0; a->options.noise > 0 && i < F; i++) {
            sample[i] += (float)(a->options.noise * am_rng_normal(&a->noise, index[b] * F + i));
        }
    }
    return rc;
}

am_samples am_augment_samples(am_augment *a)
{
    am_samples samples = a->from;
    samples.self = a;
    samples.gather = gather;
    samples.announce = NULL; /* the samples themselves are announced */
    return samples;
}
