/* Products of two stored factors, added element by element as they are read: LoRA adapters, and
 * task vectors that are stored as few singular directions.
 *
 *   dst[i,j] += scale * sum_k left[i,k] weight[k] right[k,j]
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_IO_CHECKPOINT_PRODUCT_H
#define AM_IO_CHECKPOINT_PRODUCT_H

#include "mpi/block.h"

/* Where the factors of one matrix [rows, cols] lie in their source. */
typedef struct am_product_part {
    int64_t left, right, weight; /* tensors; weight -1: all are 1 */
    int64_t rows, cols, rank;
    double scale;
    bool is_transposed; /* left is stored as [rank, rows], right as [cols, rank] */
} am_product_part;

typedef struct am_product am_product;

/** factors: its calls are used for the life of the product; copied. Local. Errors: AM_E_NOMEM. */
int am_product_create(const am_source *factors, am_product **out);
void am_product_free(am_product **product); /* accepts a pointer to NULL */
/** Elements [lo, lo + n) of the matrix, in row order, added to dst [n].
 *
 * key: names the part: while it is the same, factors that are in memory stay. Arithmetic in f64:
 * products over the rank are summed from 0 to rank - 1, scaled, and added, for each element alone,
 * so how calls are cut changes no bit. Memory: right, [rank, cols] in f64, and a few rows of left.
 * Local. Errors: the source's; AM_E_NOMEM. */
int am_product_add(am_product *product, int64_t key, const am_product_part *part, int64_t lo,
                   int64_t n, double *dst);
/** Both factors whole, in f64: left [rows, rank]; right [rank, cols] with weights and scale. Local.
 * Errors: the source's; AM_E_NOMEM. */
int am_product_load(am_product *product, const am_product_part *part, double *left, double *right);
/** Bytes that it takes while it has the factors of a matrix; of none: rank 0. Pure. */
int64_t am_product_bytes(int64_t rank, int64_t cols);

#endif
