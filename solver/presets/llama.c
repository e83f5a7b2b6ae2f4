/* Llama: token embedding, causal blocks with root-mean-square norms, rotary positions, grouped keys
 * and values, gated MLP, no biases. The context is the length of the samples.
 * Source: Touvron et al. (2023). SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include "mpi/error.h"
#include "solver/training/blocks.h"
#include "solver/training/preset.h"

typedef struct am_llama {
    int64_t vocabulary, features, depth, heads, groups, hidden;
    double rotary, epsilon, dropout;
} am_llama;

static const am_param params[] = {
    {"vocabulary", AM_PARAM_INT, offsetof(am_llama, vocabulary), "256", 1, 1 << 24, NULL,
     "tokens; 256: bytes"},
    {"features", AM_PARAM_INT, offsetof(am_llama, features), "256", 1, 1 << 20, NULL,
     "width of a position"},
    {"depth", AM_PARAM_INT, offsetof(am_llama, depth), "4", 1, 512, NULL, "blocks"},
    {"heads", AM_PARAM_INT, offsetof(am_llama, heads), "4", 1, 65536, NULL, "query heads"},
    {"groups", AM_PARAM_INT, offsetof(am_llama, groups), "0", 0, 65536, NULL,
     "key and value heads, 0: as many as queries"},
    {"hidden", AM_PARAM_INT, offsetof(am_llama, hidden), "0", 0, 1 << 22, NULL,
     "width of the gated MLP, 0: 8/3 of the features"},
    {"rotary", AM_PARAM_REAL, offsetof(am_llama, rotary), "10000", 1, 1e12, NULL,
     "base of the rotary positions"},
    {"epsilon", AM_PARAM_REAL, offsetof(am_llama, epsilon), "1e-6", 0, 1, NULL, "of the norms"},
    {"dropout", AM_PARAM_REAL, offsetof(am_llama, dropout), "0", 0, 0.99, NULL,
     "share that training drops after the embedding and every branch"},
    {0},
};

static int am_llama_build(const void *options, const am_preset_list *list, am_net *net)
{
    const am_llama *o = options;
    const int64_t groups = o->groups > 0 ? o->groups : o->heads;
    char norm[64];
    (void)list;
    snprintf(norm, sizeof norm, "rms_norm epsilon=%.17g", o->epsilon);
    const am_block_options block = {.norm = norm,
                                    .features = o->features,
                                    .heads = o->heads,
                                    .groups = groups,
                                    .hidden = o->hidden > 0 ? o->hidden : 8 * o->features / 3,
                                    .is_gated = true,
                                    .is_causal = true,
                                    .rotary = o->rotary,
                                    .sigma = 0.02,
                                    .dropout = o->dropout};
    const int rc = am_block_check("llama", &block);
    if (rc != 0) {
        return rc;
    }
    int v = am_net_add(net, "token", "embedding", AM_NET_SAMPLES, "vocabulary=%lld width=%lld",
                       (long long)o->vocabulary, (long long)o->features);
    v = am_block_stack(net, o->depth, v, &block);
    am_net_add(net, "norm", "rms_norm", v, "epsilon=%.17g", o->epsilon);
    return 0;
}

const am_preset am_preset_llama = {
    .name = "llama",
    .summary = "Llama: rotary positions, grouped keys, gated MLP",
    .params = params,
    .build = am_llama_build,
};
