/* How alike the units of two networks are. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_ALIGN_SIMILARITY_H
#define AM_SOLVER_ALIGN_SIMILARITY_H

#include <mpi.h>
#include "solver/align/axes.h"

/** S[u][v] = inner product of all weights of unit u of `base` with those of unit v of `model`.
 *
 * Collective [comm]; the same bits for any number of ranks. base, model: blocks of all tensors,
 * equal on all ranks. uses  [field->n_uses] which uses are summed, besides tensors that do not
 * count; NULL: all S     [n,n] overwritten Memory: two buffers of at most 8 MiB.  Cost: n^2 times
 * the weights of a unit, shared by the ranks. Errors: AM_E_NOMEM, agreed. */
int am_align_similarity_all(MPI_Comm comm, const am_align *align, const am_align_field *field,
                            const bool *uses, const double *base, const double *model, double *S);

/** Bytes that it takes for a field of at most n units. Pure. */
int64_t am_align_similarity_bytes(int64_t n);

/** Put units into another order: unit i of `block` becomes what unit match[i] is now, along all
 * axes of the field. Errors: AM_E_NOMEM. */
int am_align_permute(const am_align *align, const am_align_field *field, const int64_t *match,
                     double *block);

#endif
