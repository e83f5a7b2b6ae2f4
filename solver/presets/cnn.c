/* Convolutional network: for each of `channels` a convolution with its activation and a pool, then
 * one fully connected layer. SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include "solver/training/preset.h"

typedef struct am_cnn {
    int64_t height, width, colours, kernel, hidden;
    int activation;
    bool batch_norm;
    double dropout;
} am_cnn;

static const am_param params[] = {
    {"height", AM_PARAM_INT, offsetof(am_cnn, height), "0", 0, INT32_MAX, NULL,
     "pixels of the samples, 0: a square"},
    {"width", AM_PARAM_INT, offsetof(am_cnn, width), "0", 0, INT32_MAX, NULL,
     "pixels of the samples, 0: a square"},
    {"colours", AM_PARAM_INT, offsetof(am_cnn, colours), "1", 1, 65536, NULL,
     "numbers a pixel, the last axis of the samples"},
    {"kernel", AM_PARAM_INT, offsetof(am_cnn, kernel), "5", 1, 63, NULL,
     "side of a window; images keep their size before a pool if it is odd"},
    {"hidden", AM_PARAM_INT, offsetof(am_cnn, hidden), "512", 1, INT32_MAX, NULL,
     "outputs of the fully connected layer"},
    {"activation", AM_PARAM_CHOICE, offsetof(am_cnn, activation), "relu", 0, 0,
     "relu|tanh|gelu|gelu_tanh|silu|sigmoid", "after every layer"},
    {"batch_norm", AM_PARAM_BOOL, offsetof(am_cnn, batch_norm), "no", 0, 0, NULL,
     "normalise between convolution and activation"},
    {"dropout", AM_PARAM_REAL, offsetof(am_cnn, dropout), "0", 0, 0.99, NULL,
     "share of the last activations that training drops"},
    {0},
};

static int am_cnn_build(const void *options, const am_preset_list *list, am_net *net)
{
    static const char *const activations[] = {"relu",      "tanh", "gelu",
                                              "gelu_tanh", "silu", "sigmoid"};
    const am_cnn *o = options;
    const char *act = activations[o->activation];
    char name[AM_NET_NAME];
    int v =
        am_net_add(net, "image", "image", AM_NET_SAMPLES, "height=%lld width=%lld channels=%lld",
                   (long long)o->height, (long long)o->width, (long long)o->colours);
    for (int l = 0; l < list->n; l++) {
        am_net_cut(net);
        snprintf(name, sizeof name, "conv.%d", l);
        v = am_net_add(net, name, "conv2d", v,
                       "out=%lld kernel=%lld padding=%lld bias=%s activation=%s",
                       (long long)list->value[l], (long long)o->kernel, (long long)(o->kernel / 2),
                       o->batch_norm ? "no" : "yes", o->batch_norm ? "none" : act);
        if (o->batch_norm) {
            snprintf(name, sizeof name, "norm.%d", l);
            v = am_net_add(net, name, "batch_norm", v, "%s", "");
            snprintf(name, sizeof name, "act.%d", l);
            v = am_net_add(net, name, "activation", v, "function=%s", act);
        }
        snprintf(name, sizeof name, "pool.%d", l);
        v = am_net_add(net, name, "pool2d", v, "kernel=2");
    }
    am_net_cut(net);
    v = am_net_add(net, "flatten", "flatten", v, "positions=no");
    v = am_net_add(net, "hidden", "linear", v, "out=%lld activation=%s", (long long)o->hidden, act);
    if (o->dropout > 0) {
        am_net_add(net, "dropout", "dropout", v, "rate=%.17g", o->dropout);
    }
    return 0;
}

const am_preset am_preset_cnn = {
    .name = "cnn",
    .summary = "convolutions with pools, then a fully connected layer",
    .params = params,
    .list = {.key = "channels", .n = 2, .value = {32, 64}, .help = "of the convolutions"},
    .build = am_cnn_build,
};
