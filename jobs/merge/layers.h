/* Layers in the names of tensors: "model.layers.7.mlp.weight" lies in layer 7. Local and pure.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_LAYERS_H
#define AM_JOBS_MERGE_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

enum { AM_MAX_LAYER_PATTERNS = 16 };

/* Texts with one N where the number stands: "layers.N.". A pattern begins at the start of a name
 * or after a dot. n 0: layers.N. layer.N. h.N. blocks.N. block.N. */
typedef struct am_layers {
    int n;
    const char *pattern[AM_MAX_LAYER_PATTERNS]; /* borrowed */
} am_layers;

/** Whether a text is a pattern: exactly one N that no letter or digit touches. */
bool am_layer_pattern_is_sound(const char *pattern);
/** Number of the layer of a tensor, -1 if it lies in none; the first place that fits counts. */
int64_t am_layer_number(const am_layers *layers, const char *tensor);
/** Characters before that number, 0 if the tensor lies in none: layers of one stack have the same
 * ones. */
int64_t am_layer_stack(const am_layers *layers, const char *tensor);
/** The tensor's name with another layer number (the tensor lies in a layer), malloc'ed.
 * NULL: AM_E_NOMEM in the slot. */
char *am_layer_rename(const am_layers *layers, const char *tensor, int64_t layer);
/** Outside of the layers: whether the tensor stands before the first one (embeddings), not after
 * the last (norm, head). */
bool am_layer_is_before(const char *tensor);

#endif
