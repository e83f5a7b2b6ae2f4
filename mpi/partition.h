/* Who owns what: pure functions, no MPI. Chunks, blocks and slices never depend on rank count,
 * memory or block size, except that a slice is the share of one rank.
 *
 *   tensor  |--------chunk--------|--------chunk--------| ... |-- tail --|   65,536 elements each
 *   block    = 16 chunks (2^20 elements): unit of journal and checksum
 *   slice    = consecutive units (chunks or blocks) over the tensors in name order, by bytes
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_PARTITION_H
#define AM_MPI_PARTITION_H

#include "mpi/block.h"

enum { AM_CHUNK = 65536, AM_BLOCK = 1 << 20 };

/** Share [*lo, *hi) of n items of part `part` of `parts`; sizes differ by at most one. */
void am_part_range(int64_t n, int64_t parts, int64_t part, int64_t *lo, int64_t *hi);
/** Part that owns item i under am_part_range. */
int64_t am_part_owner(int64_t n, int64_t parts, int64_t i);

/** Units of `unit` elements in a tensor of numel elements (0 for an empty tensor). */
int64_t am_part_units(int64_t numel, int64_t unit);

/* The slice of one rank: spans in name order, at most one partial run per tensor. */
typedef struct am_slice {
    int64_t n;      /* spans */
    am_span *spans; /* [n] owned; within a tensor consecutive units are one span */
    int64_t elements, bytes;
} am_slice;

/** The slice of `part` of `parts`: unit u with bytes [b0,b1) of the total B in name order belongs
 * to the part in whose share [B*p/P, B*(p+1)/P) the unit's midpoint lies. Slices of all parts are
 * disjoint, consecutive and cover everything; parts beyond the number of units are empty. unit:
 * AM_CHUNK or AM_BLOCK. Errors: AM_E_NOMEM. */
int am_slice_make(const am_tensor_table *tensors, int64_t unit, int parts, int part, am_slice *out);
/** The same over the units that are left: is_left [all units of all tensors in order], borrowed.
 * A tensor may have several spans then. */
int am_slice_make_left(const am_tensor_table *tensors, int64_t unit, const bool *is_left, int parts,
                       int part, am_slice *out);
void am_slice_free(am_slice *slice);

/* The slices of all parts: spans of part p are spans[first[p]..first[p + 1]). */
typedef struct am_slices {
    int parts;
    int64_t *first; /* [parts + 1] owned */
    am_span *spans; /* owned */
} am_slices;

/** am_slice_make for all parts at once, in time and memory of (tensors + parts). Errors:
 * AM_E_NOMEM. out: freed by am_slices_free. */
int am_slices_make(const am_tensor_table *tensors, int64_t unit, int parts, am_slices *out);
void am_slices_free(am_slices *slices);

/** Longest-processing-time assignment of n jobs of given cost to `groups` groups: owner[n].
 * Deterministic: jobs by falling cost, ties by index, each to the least loaded, lowest group. */
void am_part_balance(const int64_t *cost, int64_t n, int groups, int *owner);

#endif
