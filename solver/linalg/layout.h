/* How matrices are spread over a process grid: block-cyclic, as ScaLAPACK has it.
 *
 *   rows of the grid    block of rows    0 1 2 3 4 ..  ->  process row  0 1 0 1 0 ..   (of 2)
 *
 * and columns alike. Pure: plans are made without a grid.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_LAYOUT_H
#define AM_SOLVER_LINALG_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct am_layout {
    int rows, cols; /* of the grid; process (i, j) is rank i * cols + j */
    int64_t block;  /* rows and columns of a block */
} am_layout;

enum { AM_LAYOUT_SIDE = 1024, AM_LAYOUT_BLOCK = 4096 }; /* at most */

/** How many of the first n rows process row `index` of `parts` has; columns alike. */
int64_t am_layout_count(const am_layout *layout, int64_t n, int index, int parts);
/** The most that any has. */
int64_t am_layout_most(const am_layout *layout, int64_t n, int parts);
/** Which row the i-th one of process row `index` of `parts` is. */
int64_t am_layout_place(const am_layout *layout, int64_t i, int index, int parts);
/** Whether ScaLAPACK can index a matrix of rows x cols and what is made of it. */
bool am_layout_fits(const am_layout *layout, int64_t rows, int64_t cols);

#endif
