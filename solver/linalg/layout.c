/* Block-cyclic layouts: see layout.h. SPDX-License-Identifier: BSD-3-Clause */
#include "solver/linalg/layout.h"

#include <limits.h>

int64_t am_layout_count(const am_layout *layout, int64_t n, int index, int parts)
{
    const int64_t round = layout->block * parts, first = layout->block * index;
    const int64_t rest = n % round - first;
    const int64_t more = rest < 0 ? 0 : rest < layout->block ? rest : layout->block;
    return n / round * layout->block + more;
}

int64_t am_layout_most(const am_layout *layout, int64_t n, int parts)
{
    return am_layout_count(layout, n, 0, parts); /* blocks are dealt from the first one on */
}

int64_t am_layout_place(const am_layout *layout, int64_t i, int index, int parts)
{
    return (i / layout->block * parts + index) * layout->block + i % layout->block;
}

/* Workspaces have at most some blocks of rows or columns and 6 times the matrix: of singular values
 * a part of both factors for each rank (by whole rows of them, which are as long as the shorter
 * side), of eigenvalues two squares. Offsets and counts are of 32 bits. */
bool am_layout_fits(const am_layout *layout, int64_t rows, int64_t cols)
{
    const int64_t m = am_layout_most(layout, rows, layout->rows);
    const int64_t n = am_layout_most(layout, cols, layout->cols);
    const int64_t longer = rows > cols ? rows : cols, shorter = rows > cols ? cols : rows;
    const int64_t ranks = (int64_t)layout->rows * layout->cols, each = (longer + ranks - 1) / ranks;
    return longer <= INT_MAX / 64 && (m == 0 || n <= INT_MAX / 8 / m) &&
           (each == 0 || shorter <= INT_MAX / 8 / each) &&
           longer <= INT_MAX / 8 / (2 * layout->block + 16);
}
