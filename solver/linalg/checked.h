/* What every wrapper of LAPACK does before and after the call. LAPACK hangs on infinities and NaN,
 * and its integers have 32 bits. For the files of solver/linalg alone.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef AM_SOLVER_LINALG_CHECKED_H
#define AM_SOLVER_LINALG_CHECKED_H

#include <stdbool.h>
#include "mpi/error.h"
#include "solver/linalg/matrix.h"

/** Whether LAPACK can index a matrix of rows x cols. Pure. */
bool am_lapack_fits(int64_t rows, int64_t cols);
/** Every element is finite, and LAPACK can index the matrix. One BLAS thread from here on.
 * what  names the factorisation in messages. Errors: AM_E_NUMERIC. */
int am_lapack_check(const char *what, am_matrix a);
/** The first half of am_lapack_check, where sizes follow from others that were checked. */
int am_lapack_check_finite(const char *what, am_matrix a);
/** A largest singular value, brought back to its scale. Errors: AM_E_NUMERIC, it overflows. */
int am_lapack_check_largest(double s);
/** What LAPACK's info means. routine: "dbdsqr"; trouble: what info > 0 means.
 * Errors: AM_E_NUMERIC for info > 0; info < 0 is a bug (AM_ASSERT). */
int am_lapack_info(const char *what, const char *routine, int info, const char *trouble);
/** The answer of a workspace query in elements; at least 1. Too many for 32 bits: AM_ASSERT, since
 * am_lapack_fits leaves room for them. */
int am_lapack_work(double answer);
/** Turn rows of v, and of u if u.at is not NULL with them, so that the element of largest magnitude
 * of a row of v, the first of equals, is positive. With `across`, u's columns go with v's rows. */
void am_fix_signs(am_matrix v, am_matrix u, bool across);

#endif
