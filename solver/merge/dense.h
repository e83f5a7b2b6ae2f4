/* Tensors that a method works on as matrices (pattern M of method.h): which they are, what they
 * take, and who does them. A job's slices hold such a tensor whole, so nothing is sent for it: its
 * rank reads it from all inputs, calls the method once, and stores the result. A matrix on a grid
 * (am_merge_grid) is done by all of its ranks together; each reads and stores some of its blocks.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_MERGE_DENSE_H
#define AM_SOLVER_MERGE_DENSE_H

#include "solver/merge/merge.h"

/** The slices of a job. Where its method works on no tensor as a matrix: those of am_slice_make, or
 * with is_left of am_slice_make_left. Otherwise matrices go whole to the parts, the most expensive
 * one first, to the part that has least to do; blocks (AM_BLOCK) of matrices on a grid in turn to
 * its ranks, the first parts; the rest is spread by bytes as usual. A matrix is
 * left if its first unit is.
 *
 * job      its sink is not used.  tensors  the output's table.
 * is_left  [all units of all tensors in order], NULL: all
 * Local, pure but for memory: the same on all ranks for the same arguments. Errors: AM_E_NOMEM;
 * AM_E_DATA a matrix that is too large for LAPACK, naming it; AM_E_USAGE fewer parts than a grid
 * has ranks. */
int am_merge_slice_make(const am_merge_job *job, const am_tensor_table *tensors, int64_t unit,
                        const bool *is_left, int parts, int part, am_slice *out);
/** The same for all parts, with nothing done yet. */
int am_merge_slices_make(const am_merge_job *job, const am_tensor_table *tensors, int64_t unit,
                         int parts, am_slices *out);
/** is_spread [tensors->n]: those that are merged on the job's grid. Local, pure but for memory.
 * Errors: AM_E_NOMEM; AM_E_DATA a matrix that is too large. */
int am_merge_find_spread(const am_merge_job *job, const am_tensor_table *tensors, bool *is_spread);
/** Bytes that a rank takes for the largest matrix of `tensors` that a method merges of `models`
 * models, all tensors with the same parameters and, where it needs them, Gram matrices; 0: there is
 * none. What products take besides is in it. */
int64_t am_method_matrix_bytes(const am_method *method, const am_tensor_table *tensors, int models,
                               const double *param);

#endif
