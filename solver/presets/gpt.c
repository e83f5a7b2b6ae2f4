/* GPT-2: token and position embeddings, causal blocks with the norm before attention and MLP. The
 * context is the length of the samples; every position has a label.
 * Source: Radford et al. (2019). SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include "mpi/error.h"
#include "solver/training/blocks.h"
#include "solver/training/preset.h"

typedef struct am_gpt {
    int64_t vocabulary, features, depth, heads, hidden;
    double epsilon, dropout;
} am_gpt;

static const am_param params[] = {
    {"vocabulary", AM_PARAM_INT, offsetof(am_gpt, vocabulary), "256", 1, 1 << 24, NULL,
     "tokens; 256: bytes"},
    {"features", AM_PARAM_INT, offsetof(am_gpt, features), "256", 1, 1 << 20, NULL,
     "width of a position"},
    {"depth", AM_PARAM_INT, offsetof(am_gpt, depth), "4", 1, 512, NULL, "blocks"},
    {"heads", AM_PARAM_INT, offsetof(am_gpt, heads), "4", 1, 65536, NULL, "attention heads"},
    {"hidden", AM_PARAM_INT, offsetof(am_gpt, hidden), "0", 0, 1 << 22, NULL,
     "width of the MLP, 0: four times the features"},
    {"epsilon", AM_PARAM_REAL, offsetof(am_gpt, epsilon), "1e-5", 0, 1, NULL, "of the norms"},
    {"dropout", AM_PARAM_REAL, offsetof(am_gpt, dropout), "0", 0, 0.99, NULL,
     "share that training drops after the embedding and every branch"},
    {0},
};

static int am_gpt_build(const void *options, const am_preset_list *list, am_net *net)
{
    const am_gpt *o = options;
    (void)list;
    char norm[64];
    snprintf(norm, sizeof norm, "layer_norm epsilon=%.17g", o->epsilon);
    const am_block_options block = {.norm = norm,
                                    .features = o->features,
                                    .heads = o->heads,
                                    .groups = o->heads,
                                    .hidden = o->hidden > 0 ? o->hidden : 4 * o->features,
                                    .activation = "gelu_tanh",
                                    .is_causal = true,
                                    .bias = true,
                                    .sigma = 0.02,
                                    .dropout = o->dropout};
    const int rc = am_block_check("gpt", &block);
    if (rc != 0) {
        return rc;
    }
    int v = am_net_add(net, "token", "embedding", AM_NET_SAMPLES, "vocabulary=%lld width=%lld",
                       (long long)o->vocabulary, (long long)o->features);
    v = am_net_add(net, "position", "position", v, "sigma=0.01");
    v = am_block_stack(net, o->depth, v, &block);
    am_net_add(net, "norm", "layer_norm", v, "epsilon=%.17g", o->epsilon);
    return 0;
}

const am_preset am_preset_gpt = {
    .name = "gpt",
    .summary = "GPT-2: a causal transformer over tokens",
    .params = params,
    .build = am_gpt_build,
};
