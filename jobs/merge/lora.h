/* A model with a LoRA adapter as a block source: rows are changed as they are read; the whole model
 * exists neither on disk nor in memory. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_MERGE_LORA_H
#define AM_JOBS_MERGE_LORA_H

#include "io/checkpoint/adapter.h"

typedef struct am_lora am_lora;

/** Wrap `model` so that loads give W + scale * B A, or the adapter's own tensor.
 *
 * model    its table and calls are used for the life of the wrapper; copied
 * adapter  borrowed, matched with the same table
 * out      a source with the model's table; valid until am_lora_free
 * Arithmetic in f64: products over the rank are summed from 0 to rank - 1, scaled, and added to W,
 * for each element alone, so how loads are cut changes no bit. Memory: one of the two factors of
 * the tensor read last, in f64 (rank * cols), and a few rows of the other. Local. Errors:
 * AM_E_NOMEM. */
int am_lora_create(const am_source *model, const am_adapter *adapter, am_lora **lora,
                   am_source *out);
void am_lora_free(am_lora **lora); /* accepts a pointer to NULL */

/** Bytes that the adapter takes once tensors are read through it, at most. */
int64_t am_lora_bytes(const am_lora *lora);

#endif
