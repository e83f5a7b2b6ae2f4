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

/* Of a matrix, on the rank that has most of it. */
static double elements(const am_layout *on, int64_t rows, int64_t cols)
{
    return (double)am_layout_most(on, rows, on->rows) * (double)am_layout_most(on, cols, on->cols);
}

/* Workspaces have at most some blocks of rows or columns and 6 times the matrix (eigenvalues take
 * two squares). Polar factors lay it down beside a square. Offsets and counts are of 32 bits. */
bool am_layout_fits(const am_layout *layout, int64_t rows, int64_t cols)
{
    const int64_t longer = rows > cols ? rows : cols, shorter = rows > cols ? cols : rows;
    return longer <= INT_MAX / 128 && elements(layout, rows, cols) <= INT_MAX / 8 &&
           elements(layout, shorter, longer + shorter) <= INT_MAX / 4 &&
           longer <= INT_MAX / 16 / (2 * layout->block + 16);
}
