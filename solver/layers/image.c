/* A row of features seen as an image, channels last. SPDX-License-Identifier: BSD-3-Clause */
#include <stddef.h>
#include "solver/training/real_layer.h"

typedef struct am_image {
    int64_t height, width, channels;
} am_image;

static const am_param attrs[] = {
    {"height", AM_PARAM_INT, offsetof(am_image, height), "0", 0, INT32_MAX, NULL,
     "pixels, 0: a square"},
    {"width", AM_PARAM_INT, offsetof(am_image, width), "0", 0, INT32_MAX, NULL,
     "pixels, 0: a square"},
    {"channels", AM_PARAM_INT, offsetof(am_image, channels), "1", 1, INT32_MAX, NULL,
     "numbers a pixel"},
    {0},
};

static int am_image_shape(const am_layer_site *s, am_shape *out)
{
    const am_image *o = s->attrs;
    const int64_t n = am_shape_numel(&s->in[0]), pixels = n / o->channels;
    int64_t side = 1;
    while (side * side < pixels) {
        side++;
    }
    *out = (am_shape){.n = 3, .d = {o->height, o->width, o->channels}};
    out->d[0] = o->height > 0 ? o->height : o->width > 0 ? pixels / o->width : side;
    out->d[1] = o->width > 0 ? o->width : pixels / out->d[0];
    if (am_shape_numel(out) != n) {
        return am_layer_fail(s, "%lld features are no image of %s: give height, width and channels",
                             (long long)n, am_shape_text(out));
    }
    return 0;
}

const am_layer AM_R(am_layer_image) = {
    .name = "image",
    .summary = "a row of features as [height,width,channels]",
    .attrs = attrs,
    .inputs = 1,
    .is_view = true,
    .axes = {.rule = AM_AXES_CYCLED},
    .shape = am_image_shape,
};
