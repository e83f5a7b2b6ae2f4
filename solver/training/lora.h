/* Low-rank adapters (LoRA, Hu et al. 2021; names and initial values as in PEFT): a network whose
 * chosen products W x become W x + scale B A x, with W frozen. It is a rewrite of the list of
 * nodes:
 *
 *     NAME (linear, conv2d) ──────────────────────────┐
 *     NAME.lora_dropout ── NAME.lora_A (the same layer, r outputs) ── NAME.lora_B (layer lora)
 *
 * NAME.lora_B takes over its function, so every other part of training sees an ordinary network
 * with most tensors frozen. Outside training models are whole: adapters are made for a run and
 * folded into the weights after it. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_LORA_H
#define AM_SOLVER_TRAINING_LORA_H

#include "solver/training/net.h"

typedef struct am_lora_options {
    int64_t r; /* 0: no adapters */
    double lora_alpha, lora_dropout;
    bool use_rslora; /* scale alpha / sqrt(r), else alpha / r */
    char **target; /* [n_targets] owned patterns of layer names (* and ?), or of their ends after a
                      dot, as PEFT's target_modules */
    int n_targets;
} am_lora_options;
void am_lora_options_free(am_lora_options *options); /* accepts a zeroed one */
double am_lora_scale(const am_lora_options *options);
/** Add a copy of a pattern. Errors: AM_E_NOMEM. */
int am_lora_target(am_lora_options *options, const char *pattern);

/** A copy of `net` with adapters, shaped if net is. Errors: AM_E_RECIPE a pattern without a layer,
 * a name that is too long; AM_E_NOMEM. out: freed by am_net_free, also after an error. */
int am_lora_adapt(const am_net *net, const am_lora_options *options, am_net *out);

/* An adapter of a shaped network: tensors of its trunk. */
typedef struct am_lora_pair {
    int64_t w, a, b;          /* W [rows, cols], A [rank, cols], B [rows, rank] */
    int64_t rank, rows, cols; /* rows: outputs */
    double scale;
} am_lora_pair;
/** Adapters in the order of their layers into pair[net->n]; returns how many. Pure. */
int am_lora_pairs(const am_net *adapted, am_lora_pair *pair);

/** The trunk `whole` (layout of the network without adapters, dtype F32 or F64) into the places of
 * `adapted`'s trunk, whose adapters stay as they are. Pure. */
void am_lora_unfold(const am_net *adapted, const am_param_layout *layout, const void *whole,
                    void *trunk);
/** The other way, with W + scale B A for W: summed in f64 in the order of the ranks, rounded once:
 * what merging the adapter into the model gives. Errors: AM_E_NOMEM. */
int am_lora_fold(const am_net *adapted, const am_param_layout *layout, const void *trunk,
                 void *whole);

#endif
