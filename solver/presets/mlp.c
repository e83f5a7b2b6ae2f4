/* Multilayer perceptron: inputs -> widths[0] -> activation -> ... -> widths[n-1] -> activation.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include "solver/training/preset.h"

typedef struct am_mlp {
    int activation;
    double dropout;
} am_mlp;

static const am_param params[] = {
    {"activation", AM_PARAM_CHOICE, offsetof(am_mlp, activation), "relu", 0, 0,
     "relu|tanh|gelu|gelu_tanh|silu|sigmoid", "after every hidden layer"},
    {"dropout", AM_PARAM_REAL, offsetof(am_mlp, dropout), "0", 0, 0.99, NULL,
     "share of the activations that training drops"},
    {0},
};

static int am_mlp_build(const void *options, const am_preset_list *list, am_net *net)
{
    static const char *const activations[] = {"relu",      "tanh", "gelu",
                                              "gelu_tanh", "silu", "sigmoid"};
    const am_mlp *o = options;
    char name[AM_NET_NAME];
    int v = AM_NET_SAMPLES;
    for (int l = 0; l < list->n; l++) {
        /* Two digits when there are ten or more: the order of names is the order of layers. */
        snprintf(name, sizeof name, list->n < 10 ? "layers.%d" : "layers.%02d", l);
        v = am_net_add(net, name, "linear", v, "out=%lld activation=%s", (long long)list->value[l],
                       activations[o->activation]);
        if (o->dropout > 0) {
            snprintf(name, sizeof name, "dropout.%d", l);
            v = am_net_add(net, name, "dropout", v, "rate=%.17g", o->dropout);
        }
    }
    return 0;
}

const am_preset am_preset_mlp = {
    .name = "mlp",
    .summary = "fully connected layers",
    .params = params,
    .list = {.key = "widths", .n = 2, .value = {512, 256}, .help = "hidden layers"},
    .build = am_mlp_build,
};
