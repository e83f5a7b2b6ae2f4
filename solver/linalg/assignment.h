/* Linear assignment: which column each row of a square matrix takes, so that the sum is largest.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_ASSIGNMENT_H
#define AM_SOLVER_LINALG_ASSIGNMENT_H

#include <stdint.h>

/** Match rows and columns: sum_i gain[i][match[i]] is largest.
 *
 * Local, pure: the same answer everywhere, also among equal ones; exact as long as sums and
 * differences of the entries are (whole numbers below 2^52), else best to rounding.
 * n      rows and columns, 0 <= n <= INT32_MAX
 * gain   rows lie ld >= n apart; any finite values
 * match  [n] column of each row, a permutation
 * u, v   [n] prices of rows and columns, u[i] + v[j] >= gain[i][j], equal where matched: the proof
 *        that no other sum is larger; both NULL: not wanted. Entries above 2^1000 are scaled by
 *        2^-24 for them, and so are the prices.
 *
 * Memory: 41 bytes a row.  Cost: n^3 steps at most, n^2 where rows are alike to their columns.
 * Errors: AM_E_NUMERIC naming an entry that is not finite; AM_E_NOMEM.
 * Source: Jonker & Volgenant (1987), Crouse (2016): shortest augmenting paths. */
int am_assignment(int64_t n, const double *gain, int64_t ld, int64_t *match, double *u, double *v);

#endif
