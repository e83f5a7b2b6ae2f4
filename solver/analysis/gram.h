/* Gram matrices, norms and cosines of task vectors, global and per tensor.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ANALYSIS_GRAM_H
#define AM_SOLVER_ANALYSIS_GRAM_H

#include <mpi.h>
#include "mpi/block.h"
#include "mpi/partition.h"
#include "solver/merge/merge.h"

/** Inner products of the T task vectors tau_t = model_t - base, exact sums of per-chunk f64
 * partials.
 *
 * Collective [comm]. Same bits for any rank count and block size.
 * base       [same table]  NULL: the models themselves are the vectors
 * slice      [rank] this rank's share; made of whole chunks
 * per_tensor [same] [tensors, T, T] f64 row-major, caller allocates, may be NULL
 * global     [same] [T, T] f64 row-major; both symmetric
 * Memory: T(T+1)/2 accumulators of 0.6 KB a tensor in a window of tensors. One pass over the data.
 * Errors: AM_E_DATA not finite (file, tensor, index), AM_E_NOMEM, sources' errors; agreed. */
int am_gram_all(MPI_Comm comm, const am_tensor_table *tensors, const am_merge_input *base,
                const am_merge_input *models, int n_models, const am_slice *slice,
                double *per_tensor, double *global);

/** Bytes that it takes on a rank for n models without per_tensor. */
int64_t am_gram_bytes(int n_models);

/** Norms [T] and cosines [T,T] of a Gram matrix [T,T]: diagonal exactly 1, NaN where a vector is
 * zero, clamped to [-1,1]. Local, pure. */
void am_gram_cosines(const double *gram, int n, double *norms, double *cosines);

#endif
