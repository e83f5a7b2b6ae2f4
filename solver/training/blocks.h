/* The transformer block that presets share:
 *
 *     v ──> norm ──> qkv ──> attention ──> proj ──> (+) ──> norm ──> up ──> down ──> (+) ──>
 *      └────────────────────────────────────────────┘└───────────────────────────────┘
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_BLOCKS_H
#define AM_SOLVER_TRAINING_BLOCKS_H

#include "solver/training/net.h"

typedef struct am_block_options {
    const char *norm; /* layer and its attributes: "rms_norm epsilon=1e-6" */
    int64_t features, heads, groups, hidden;
    const char *activation; /* of the MLP; not gated */
    bool is_gated;          /* MLP: silu(gate) * up instead */
    bool is_causal, bias;
    double rotary; /* base, 0: none */
    double sigma;  /* of the initial weights */
    double dropout;
} am_block_options;

/** Append block `number` ("blocks.N...."), after a cut; returns its value. Errors: net->error. */
int am_block_add(am_net *net, int64_t number, int v, const am_block_options *o);
/** What is wrong with the widths of `preset`: features must divide into heads, heads into groups.
 * Local, pure. Errors: AM_E_RECIPE. */
int am_block_check(const char *preset, const am_block_options *o);
/** Append dropout after the embedding, then `depth` blocks; returns the value. Errors:
 * net->error. */
int am_block_stack(am_net *net, int64_t depth, int v, const am_block_options *o);
/** Append a dropout layer if rate > 0; returns the value. */
int am_block_dropout(am_net *net, const char *name, int v, double rate);

#endif
