/* The two precisions. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/training/train.h"

#include <stddef.h>

extern const am_train_ops am_train_ops_f32, am_train_ops_f64; /* real_eval.c */

const am_train_ops *am_train_ops_of(am_dtype dtype)
{
    switch (dtype) {
    case AM_DTYPE_F32:
        return &am_train_ops_f32;
    case AM_DTYPE_F64:
        return &am_train_ops_f64;
    default:
        return NULL;
    }
}
