/* Vision transformer: patches of an image as positions, blocks with the norm before attention and
 * MLP, and the mean or a class token for the head.
 * Source: Dosovitskiy et al. (2020). SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include "mpi/error.h"
#include "solver/training/blocks.h"
#include "solver/training/preset.h"

typedef struct am_vit {
    int64_t height, width, colours, patch, features, depth, heads, hidden;
    bool class_token;
    double epsilon, dropout;
} am_vit;

static const am_param params[] = {
    {"height", AM_PARAM_INT, offsetof(am_vit, height), "0", 0, INT32_MAX, NULL,
     "pixels of the samples, 0: a square"},
    {"width", AM_PARAM_INT, offsetof(am_vit, width), "0", 0, INT32_MAX, NULL,
     "pixels of the samples, 0: a square"},
    {"colours", AM_PARAM_INT, offsetof(am_vit, colours), "1", 1, 65536, NULL,
     "numbers a pixel, the last axis of the samples"},
    {"patch", AM_PARAM_INT, offsetof(am_vit, patch), "4", 1, 255, NULL, "side of a patch, pixels"},
    {"features", AM_PARAM_INT, offsetof(am_vit, features), "128", 1, 1 << 20, NULL,
     "width of a position"},
    {"depth", AM_PARAM_INT, offsetof(am_vit, depth), "4", 1, 512, NULL, "blocks"},
    {"heads", AM_PARAM_INT, offsetof(am_vit, heads), "4", 1, 65536, NULL, "attention heads"},
    {"hidden", AM_PARAM_INT, offsetof(am_vit, hidden), "0", 0, 1 << 22, NULL,
     "width of the MLP, 0: four times the features"},
    {"class_token", AM_PARAM_BOOL, offsetof(am_vit, class_token), "yes", 0, 0, NULL,
     "classify by a learned first position; else by the mean of all"},
    {"epsilon", AM_PARAM_REAL, offsetof(am_vit, epsilon), "1e-6", 0, 1, NULL, "of the norms"},
    {"dropout", AM_PARAM_REAL, offsetof(am_vit, dropout), "0", 0, 0.99, NULL,
     "share that training drops after the embedding and every branch"},
    {0},
};

static int am_vit_build(const void *options, const am_preset_list *list, am_net *net)
{
    const am_vit *o = options;
    (void)list;
    char norm[64];
    snprintf(norm, sizeof norm, "layer_norm epsilon=%.17g", o->epsilon);
    const am_block_options block = {.norm = norm,
                                    .features = o->features,
                                    .heads = o->heads,
                                    .groups = o->heads,
                                    .hidden = o->hidden > 0 ? o->hidden : 4 * o->features,
                                    .activation = "gelu",
                                    .bias = true,
                                    .sigma = 0.02,
                                    .dropout = o->dropout};
    const int rc = am_block_check("vit", &block);
    if (rc != 0) {
        return rc;
    }
    int v =
        am_net_add(net, "image", "image", AM_NET_SAMPLES, "height=%lld width=%lld channels=%lld",
                   (long long)o->height, (long long)o->width, (long long)o->colours);
    v = am_net_add(net, "patch", "conv2d", v, "out=%lld kernel=%lld stride=%lld",
                   (long long)o->features, (long long)o->patch, (long long)o->patch);
    v = am_net_add(net, "positions", "flatten", v, "positions=yes");
    if (o->class_token) {
        v = am_net_add(net, "class", "class_token", v, "%s", "");
    }
    v = am_net_add(net, "position", "position", v, "sigma=0.02");
    v = am_block_stack(net, o->depth, v, &block);
    v = am_net_add(net, "norm", "layer_norm", v, "epsilon=%.17g", o->epsilon);
    am_net_add(net, "pool", "pool_positions", v, "take=%s", o->class_token ? "first" : "mean");
    return 0;
}

const am_preset am_preset_vit = {
    .name = "vit",
    .summary = "vision transformer",
    .params = params,
    .build = am_vit_build,
};
