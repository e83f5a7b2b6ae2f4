/* Groups of f64 in registers, for kernels over several arrays that would otherwise write and read
 * their sums again for every array. A kernel is an AM_INLINE function of one group, with `bytes` of
 * it that are there; an AM_CLONES function calls it for whole groups and for the rest. Lanes that
 * are not there are 0. SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_MPI_LANES_H
#define AM_MPI_LANES_H

#include <stdint.h>
#include <string.h>

enum { AM_LANES = 4 };
typedef double am_lanes __attribute__((vector_size(AM_LANES * sizeof(double))));
typedef int64_t am_lanes_mask __attribute__((vector_size(AM_LANES * sizeof(int64_t))));

#define AM_INLINE static inline __attribute__((always_inline))

/* Lanes where the mask is not set become +0. */
#define AM_LANES_WHERE(mask, lanes) ((am_lanes)((am_lanes_mask)(lanes) & (mask)))

/* The mask of four marks, one a byte of a u32. */
#define AM_LANES_OF_BYTES(marks)                                                                   \
    ((((am_lanes_mask){0} + (int64_t)(marks)) &                                                    \
      (am_lanes_mask){0xFF, 0xFF00, 0xFF0000, INT64_C(0xFF000000)}) != 0)
#define AM_LANES_ABS(lanes) ((am_lanes)((am_lanes_mask)(lanes)&INT64_MAX))

/** Call group(i, bytes) for all groups of n elements: the statement `call` sees `i` and `bytes`. */
#define AM_EACH_GROUP(n, call)                                                                     \
    do {                                                                                           \
        int64_t i = 0;                                                                             \
        size_t bytes = sizeof(am_lanes);                                                           \
        for (; i + AM_LANES <= (n); i += AM_LANES) {                                               \
            call;                                                                                  \
        }                                                                                          \
        bytes = (size_t)((n)-i) * sizeof(double);                                                  \
        if (bytes > 0) {                                                                           \
            call;                                                                                  \
        }                                                                                          \
    } while (0)

#endif
