/* Task vectors as matrices, each whole on one rank: which tensors are matrices, who does which, and
 * reading them. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ANALYSIS_MATRICES_H
#define AM_SOLVER_ANALYSIS_MATRICES_H

#include <mpi.h>
#include "solver/linalg/matrix.h"
#include "solver/merge/merge.h"

/** Floats of two dimensions or more that are not empty. Pure. */
bool am_is_matrix(const am_tensor *tensor);
/** Its rows, the first dimension, and columns, all others. Pure. */
int64_t am_matrix_rows(const am_tensor *tensor);
int64_t am_matrix_cols(const am_tensor *tensor);
/** Errors: AM_E_DATA naming a tensor that LAPACK cannot index; `instead`: what to do. */
int am_matrix_check(const am_tensor *tensor, const char *instead);

/** The part that does each of the wanted matrices, by the cost of a factorisation: the most
 * expensive one first, to the part that has least to do. owner [tensors->n]: -1: not wanted. Local,
 * pure but for memory. Errors: AM_E_NOMEM. */
int am_matrices_deal(const am_tensor_table *tensors, const bool *is_wanted, int parts, int *owner);
/** Every matrix by its owner: work(self, tensor) on that rank, in the order of the tensors. Ranks
 * wait for each other at the end, and stop when one is asked to.
 *
 * Collective [comm]; n, owner [n, same]. Errors: those of work, agreed; AM_E_STOPPED. */
int am_matrices_each_all(MPI_Comm comm, int64_t n, const int *owner,
                         int (*work)(void *self, int64_t tensor), void *self);

enum { AM_MATRIX_PIECE = 4096 }; /* elements of the base that are read at a time */

/** out = model - base, as a matrix. out: of the tensor's rows and columns, without gaps. Local.
 * Errors: those of am_input_load: a value that is not finite. */
int am_matrix_load(const am_merge_input *base, const am_merge_input *model, int64_t tensor,
                   am_matrix out);

#endif
