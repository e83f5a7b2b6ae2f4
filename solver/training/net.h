/* Networks for training: a shared trunk and one linear head per task, as shapes and offsets only;
 * parameters live in one contiguous block of reals that the caller owns. The arithmetic is compiled
 * for f32 and f64 from one source and reached through am_train_ops. SPDX-License-Identifier:
 * BSD-3-Clause */
#ifndef AM_SOLVER_TRAINING_NET_H
#define AM_SOLVER_TRAINING_NET_H

#include <mpi.h>
#include "mpi/block.h"

enum { AM_MAX_WIDTHS = 32 };

typedef enum am_activation { AM_RELU, AM_TANH } am_activation;

/* Preset `mlp`: inputs -> widths[0] -> act -> ... -> widths[n-1] -> act; a head is one more linear
 * layer from widths[n-1] to K classes. */
typedef struct am_net_spec {
    int64_t inputs;
    int n_widths;
    int64_t widths[AM_MAX_WIDTHS];
    am_activation activation;
} am_net_spec;

/* Where the tensors of a parameter block lie. */
typedef struct am_param_layout {
    am_tensor_table tensors; /* owned; dtype F32 or F64; sorted by name */
    int64_t *offset;         /* [tensors.n] owned; elements from the start of the block */
    int64_t n;               /* reals in the block */
} am_param_layout;
void am_param_layout_free(am_param_layout *layout);

/** Trunk "layers.I.weight" [out,in], "layers.I.bias" [out] (I zero-padded when there are ten or
 * more). Errors: AM_E_RECIPE for a bad spec; AM_E_NOMEM. */
int am_net_trunk_layout(const am_net_spec *spec, am_dtype dtype, am_param_layout *out);
/** Head "head.weight" [K, widths[last]], "head.bias" [K]. */
int am_net_head_layout(const am_net_spec *spec, int64_t classes, am_dtype dtype,
                       am_param_layout *out);

#endif
