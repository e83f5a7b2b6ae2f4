/* Where statistics of a tensor lie in a checkpoint that `allmerge stats` made. Pure.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_JOBS_STATS_NAMES_H
#define AM_JOBS_STATS_NAMES_H

#include "mpi/tensor.h"

/** The Fisher information of tensor `name`; -1: none. */
int64_t am_stats_find_fisher(const am_tensor_table *tensors, const char *name);
/** The Gram matrix of what LAYER.weight multiplies; -1: none, or `name` is no such tensor. */
int64_t am_stats_find_gram(const am_tensor_table *tensors, const char *name);

#endif
